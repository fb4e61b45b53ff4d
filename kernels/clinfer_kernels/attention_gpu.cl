// out = softmax(q k^T scale + mask) v, a work-group to QUERIES queries of one head: keys and values
// pass through local memory KEYS at a time, with a running maximum and sum per query (online
// softmax: Milakov & Gimelshein 2018; FlashAttention: Dao et al. 2022).
//
//                    k_tile^T, then v_tile              Per block of keys:
//                   +----------------+ KEYS              1 k into the tile, scores into s_tile
//      q_tile       |                |                   2 every work-item finds its rows' maxima
//     +--------+    +----------------+                   3 e^(s - m) into s_tile, v into the tile
//     |        |    +-------+  +----------------+        4 o = c o + s_tile v_tile in registers,
//     | QUERIES|    |s_tile |  | o (registers)  |          l = c l + the row's sum
//     +--------+    +-------+  +----------------+
//        D            KEYS            Dv
//
// Work-item (x, y) owns scores and results at rows y + r WG_ROWS, columns x + c WG_COLS.
// Where every key is masked with -inf, l = 0 and the result is NaN, as in the softmax of a row of
// -inf.
#define WG_ROWS $wg_rows // work-items along queries
#define WG_COLS $wg_cols // work-items along keys and output columns
#define ROWS $rows // queries of a work-item
#define KEY_COLS $key_cols // keys of a work-item
#define HEAD $head_size // room for D and Dv
#define OUT_COLS (HEAD / WG_COLS) // output columns of a work-item
#define QUERIES (WG_ROWS * ROWS)
#define KEYS (WG_COLS * KEY_COLS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define PITCH (HEAD + 1) // rows of a tile start in different banks
#define S_PITCH (KEYS + 1)

$head
$parameters)
{
    __local $element q_tile[QUERIES * PITCH];
    __local $element kv_tile[KEYS * PITCH];
    __local $element s_tile[QUERIES * S_PITCH];
    const int x = get_local_id(0);
    const int y = get_local_id(1);
    const int item = y * WG_COLS + x;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int query0 = task % query_blocks * QUERIES;
        const int z1 = task / query_blocks % heads;
        const int z0 = task / query_blocks / heads;
        const int kv = z1 / group;
$batch
        for (int e = item; e < QUERIES * HEAD; e += WG_SIZE) {
            const int i = query0 + e / HEAD;
            const int d = e % HEAD;
            $element value = 0;
            if (i < Sq && d < D) value = $load_q * $scale;
            q_tile[e / HEAD * PITCH + d] = value;
        }
        $element o[ROWS][OUT_COLS];
        $element maximum[ROWS];
        $element total[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            maximum[r] = -INFINITY;
            total[r] = 0;
            #pragma unroll
            for (int c = 0; c < OUT_COLS; ++c) o[r][c] = 0;
        }
        const int seen = $seen;
        for (int key0 = 0; key0 < seen; key0 += KEYS) {
            for (int e = item; e < KEYS * HEAD; e += WG_SIZE) {
                const int j = key0 + e / HEAD;
                const int d = e % HEAD;
                $element value = 0;
                if (j < seen && d < D) value = $load_k;
                kv_tile[e / HEAD * PITCH + d] = value;
            }
            barrier(CLK_LOCAL_MEM_FENCE);

            $element scores[ROWS][KEY_COLS];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) scores[r][c] = 0;
            }
            for (int d = 0; d < D; ++d) {
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const $element q_value = q_tile[(y + r * WG_ROWS) * PITCH + d];
                    #pragma unroll
                    for (int c = 0; c < KEY_COLS; ++c) {
                        scores[r][c] += q_value * kv_tile[(x + c * WG_COLS) * PITCH + d];
                    }
                }
            }
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    const int i = query0 + y + r * WG_ROWS;
                    const int j = key0 + x + c * WG_COLS;
                    $element score = -INFINITY;
                    if (i < Sq && j < seen) {
                        score = scores[r][c];
$mask
                    }
                    scores[r][c] = score;
                    s_tile[(y + r * WG_ROWS) * S_PITCH + x + c * WG_COLS] = score;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);

            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                $element highest = maximum[r];
                for (int n = 0; n < KEYS; ++n) {
                    const $element score = s_tile[(y + r * WG_ROWS) * S_PITCH + n];
                    highest = score > highest ? score : highest;
                }
                const $element shift = highest == -INFINITY ? 0 : highest;
                const $element correction = exp_$element(maximum[r] - shift);
                maximum[r] = highest;
                total[r] *= correction;
                #pragma unroll
                for (int c = 0; c < OUT_COLS; ++c) o[r][c] *= correction;
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    scores[r][c] = exp_$element(scores[r][c] - shift);
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);

            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    s_tile[(y + r * WG_ROWS) * S_PITCH + x + c * WG_COLS] = scores[r][c];
                }
            }
            for (int e = item; e < KEYS * HEAD; e += WG_SIZE) {
                const int j = key0 + e / HEAD;
                const int d = e % HEAD;
                $element value = 0;
                if (j < seen && d < Dv) value = $load_v;
                kv_tile[e / HEAD * PITCH + d] = value;
            }
            barrier(CLK_LOCAL_MEM_FENCE);

            for (int n = 0; n < KEYS; ++n) {
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const $element weight = s_tile[(y + r * WG_ROWS) * S_PITCH + n];
                    total[r] += weight;
                    #pragma unroll
                    for (int c = 0; c < OUT_COLS; ++c) {
                        o[r][c] += weight * kv_tile[n * PITCH + x + c * WG_COLS];
                    }
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            #pragma unroll
            for (int c = 0; c < OUT_COLS; ++c) {
                const int i = query0 + y + r * WG_ROWS;
                const int d = x + c * WG_COLS;
                if (i >= Sq || d >= Dv) continue;
                const long at = $out_at;
                const $element result = o[r][c] / total[r];
                $store
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
