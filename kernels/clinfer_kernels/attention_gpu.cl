// out = softmax(q k^T scale + mask) v, a work-group to QUERIES rows of queries that share a head of
// keys and values, which pass through local memory KEYS at a time, with a running maximum and sum
// per query (online softmax: Milakov & Gimelshein 2018; FlashAttention: Dao et al. 2022).
//
//                    kv_tile: k, then v                Per block of keys:
//                   +----------------+                  1 k into the tile; v is on its way
//      q_tile       | KEYS           |                  2 scores; each work-item's highest into tree
//     +--------+    +----------------+                  3 v into the tile, e^(s - m) into s_tile;
//     |QUERIES |    +-------+  +----------------+         o, l = c o, c l
//     |        |    |s_tile |  | o (registers)  |       4 o += s_tile v; the next k is on its way
//     +--------+    +-------+  +----------------+
//        HEAD          KEYS           HEAD
//
// Tiles are of vectors of WIDTH elements, along the head or, in s_tile, along the keys. Work-item
// (x, y) owns rows y + r WG_ROWS: of the scores columns x + c WG_COLS, of the results the vectors
// x + w WG_COLS. Row `row` is query row / group of head kv group + row % group.
$purpose
#define WG_ROWS $wg_rows // work-items along queries
#define WG_COLS $wg_cols // work-items along keys and output columns
#define ROWS $rows // queries of a work-item
#define KEY_COLS $key_cols // keys of a work-item
#define HEAD $head_size // room for D and Dv
#define WIDTH 4
#define DEPTH (HEAD / WIDTH) // vectors of a row
#define VECS (DEPTH / WG_COLS) // output vectors of a work-item
#define QUERIES (WG_ROWS * ROWS)
#define KEYS (WG_COLS * KEY_COLS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define FETCHED (KEYS * DEPTH / WG_SIZE) // vectors of k or v that a work-item copies
#define PITCH (DEPTH + 1) // rows of a tile start in different banks
#define S_PITCH (KEYS / WIDTH + 1)
#define TREE (WG_COLS / WIDTH) // vectors of a row's partial maxima, or sums

typedef $vec vec;

$head
$parameters)
{
    __local vec q_tile[QUERIES * PITCH];
    __local vec kv_tile[KEYS * PITCH];
    __local vec s_tile[QUERIES * S_PITCH];
    __local vec tree[QUERIES * TREE];
    __local $element* const s_flat = (__local $element*)s_tile;
    __local $element* const tree_flat = (__local $element*)tree;
    const int x = get_local_id(0);
    const int y = get_local_id(1);
    const int item = y * WG_COLS + x;
    $each_task {
        const int row0 = task % row_blocks * QUERIES;
$split
        const int kv = z % kv_heads;
        const int z0 = z / kv_heads;
$bases
        const int last = row0 + QUERIES < rows ? row0 + QUERIES : rows;
        const int seen = $seen;
$range
        for (int e = item; e < QUERIES * DEPTH; e += WG_SIZE) {
            const int row = row0 + e / DEPTH;
            const int d = e % DEPTH * WIDTH;
            vec value = 0;
            if (row < rows && d < D) {
$row
                const int lanes = D - d;
$q_base
$load_q
                value = $q_value * $scale;
            }
            q_tile[e / DEPTH * PITCH + e % DEPTH] = value;
        }
        vec o[ROWS][VECS];
        $element maximum[ROWS];
        $element total[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            maximum[r] = -INFINITY;
            total[r] = 0;
            #pragma unroll
            for (int w = 0; w < VECS; ++w) o[r][w] = 0;
        }
        vec fetched[FETCHED];
$first_k
        for (int key0 = first; key0 < stop; key0 += KEYS) {
$put
            barrier(CLK_LOCAL_MEM_FENCE);

$fetch_v
            $element scores[ROWS][KEY_COLS];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) scores[r][c] = 0;
            }
            #pragma unroll $unroll
            for (int d = 0; d < DEPTH; ++d) {
                vec k_part[KEY_COLS];
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    k_part[c] = kv_tile[(x + c * WG_COLS) * PITCH + d];
                }
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const vec q_part = q_tile[(y + r * WG_ROWS) * PITCH + d];
                    #pragma unroll
                    for (int c = 0; c < KEY_COLS; ++c) {
                        $element sum = scores[r][c];
                        sum += q_part.s0 * k_part[c].s0;
                        sum += q_part.s1 * k_part[c].s1;
                        sum += q_part.s2 * k_part[c].s2;
                        sum += q_part.s3 * k_part[c].s3;
                        scores[r][c] = sum;
                    }
                }
            }
$shared_mask
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const int row = row0 + y + r * WG_ROWS;
$mask_row
                $element highest = maximum[r];
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    const int j = key0 + x + c * WG_COLS;
                    $element score = -INFINITY;
                    if (row < rows && j < stop) {
                        score = scores[r][c];
$mask
                    }
                    scores[r][c] = score;
                    highest = score > highest ? score : highest;
                }
                tree_flat[(y + r * WG_ROWS) * WG_COLS + x] = highest;
            }
            barrier(CLK_LOCAL_MEM_FENCE);

$put
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                vec top = tree[(y + r * WG_ROWS) * TREE];
                #pragma unroll
                for (int n = 1; n < TREE; ++n) {
                    const vec other = tree[(y + r * WG_ROWS) * TREE + n];
                    top = other > top ? other : top;
                }
                const $element even = top.s2 > top.s0 ? top.s2 : top.s0;
                const $element odd = top.s3 > top.s1 ? top.s3 : top.s1;
                const $element highest = odd > even ? odd : even;
                const $element shift = highest == -INFINITY ? 0 : highest;
                const $element correction = exp_$element(maximum[r] - shift);
                maximum[r] = highest;
                total[r] *= correction;
                #pragma unroll
                for (int w = 0; w < VECS; ++w) o[r][w] *= correction;
                #pragma unroll
                for (int c = 0; c < KEY_COLS; ++c) {
                    const $element weight = exp_$element(scores[r][c] - shift);
                    total[r] += weight;
                    s_flat[(y + r * WG_ROWS) * (S_PITCH * WIDTH) + x + c * WG_COLS] = weight;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);

$next_k
            #pragma unroll $unroll
            for (int n = 0; n < KEYS / WIDTH; ++n) {
                vec weights[ROWS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    weights[r] = s_tile[(y + r * WG_ROWS) * S_PITCH + n];
                }
                #pragma unroll
                for (int w = 0; w < VECS; ++w) {
                    const __local vec* v_part = kv_tile + n * WIDTH * PITCH + x + w * WG_COLS;
                    const vec v0 = v_part[0];
                    const vec v1 = v_part[PITCH];
                    const vec v2 = v_part[2 * PITCH];
                    const vec v3 = v_part[3 * PITCH];
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        o[r][w] += weights[r].s0 * v0;
                        o[r][w] += weights[r].s1 * v1;
                        o[r][w] += weights[r].s2 * v2;
                        o[r][w] += weights[r].s3 * v3;
                    }
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) tree_flat[(y + r * WG_ROWS) * WG_COLS + x] = total[r];
        barrier(CLK_LOCAL_MEM_FENCE);
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            vec totals = tree[(y + r * WG_ROWS) * TREE];
            #pragma unroll
            for (int n = 1; n < TREE; ++n) totals += tree[(y + r * WG_ROWS) * TREE + n];
            const $element weights = (totals.s0 + totals.s2) + (totals.s1 + totals.s3);
            const int row = row0 + y + r * WG_ROWS;
            if (row >= rows) continue;
$row_end
$finish
            #pragma unroll
            for (int w = 0; w < VECS; ++w) {
                const int d = (x + w * WG_COLS) * WIDTH;
                const int lanes = Dv - d;
                if (lanes <= 0) continue;
$store
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
