// out = softmax(q k^T scale + mask) v by matrix instructions, a work-group to QUERIES rows of
// queries that share a head of keys and values, which pass through local memory KEYS at a time:
// as attention_gpu.cl, but that both products are those of a matrix unit's waves.
//
//     q_tile [HEAD / 4][QUERIES][4]    k in kv_tile [HEAD / 4][KEYS][4]     score = q_tile k
//     p_tile [KEYS / 4][QUERIES][4]    v in kv_tile [KEYS / 4][HEAD][4]     o += p_tile v
//
// A work-item has ROWS rows, S_COLS columns of scores and O_COLS of results; those that share rows
// exchange their highest scores, and sums of weights, through `tree`.
#define WG_ROWS $wg_rows // work-items along queries
#define WG_COLS $wg_cols // and along keys and output columns
#define ROWS $rows
#define S_COLS $s_cols
#define O_COLS $o_cols
#define HEAD $head_size // room for D and Dv
#define KEYS $keys
#define LANES 4
#define DEPTH (HEAD / LANES) // vectors of a row
#define QUERIES (WG_ROWS * ROWS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define A_PITCH (QUERIES + $pad) // of tiles' rows
#define K_PITCH (KEYS + $pad)
#define V_PITCH (HEAD + $pad)
#define FETCHED (KEYS * DEPTH / WG_SIZE) // vectors of k or v that a work-item copies

$head
$parameters)
{
    __local $element q_tile[HEAD * A_PITCH] __attribute__((aligned(16)));
    __local $element p_tile[KEYS * A_PITCH] __attribute__((aligned(16)));
    __local $element kv_tile[$kv_room] __attribute__((aligned(16)));
    __local float tree[QUERIES * WG_COLS];
    const int item = get_local_id(0);
    const int turn = 0;
$matrices
$s_places
    const int x = wave_col / (LANES * S_COLS) * LANES + lane_col;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int row0 = task % row_blocks * QUERIES;
        const int z = task / row_blocks;
        const int kv = z % kv_heads;
        const int z0 = z / kv_heads;
$bases
        const int last = row0 + QUERIES < rows ? row0 + QUERIES : rows;
        const int stop = $seen;
        for (int e = item; e < QUERIES * DEPTH; e += WG_SIZE) {
            const int row = row0 + e / DEPTH;
            const int d = e % DEPTH * LANES;
            float4 value = 0;
            if (row < rows && d < D) {
$row
                const int lanes = D - d;
$q_base
$load_q
                value = $q_value;
            }
            const int at = (e % DEPTH * A_PITCH + e / DEPTH) * LANES;
            $put_q
        }
        float o[ROWS][O_COLS];
        float maximum[ROWS], total[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            maximum[r] = -INFINITY;
            total[r] = 0;
            #pragma unroll
            for (int c = 0; c < O_COLS; ++c) o[r][c] = 0;
        }
        float4 fetched[FETCHED];
$first_k
        for (int key0 = 0; key0 < stop; key0 += KEYS) {
            #pragma unroll
            for (int n = 0; n < FETCHED; ++n) {
                const int e = item + n * WG_SIZE;
                const int at = (e % DEPTH * K_PITCH + e / DEPTH) * LANES;
                $put_k
            }
            barrier(CLK_LOCAL_MEM_FENCE);

$fetch_v
            float score[ROWS][S_COLS];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                #pragma unroll
                for (int c = 0; c < S_COLS; ++c) score[r][c] = 0;
            }
$scores
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const int place = $row_place;
                const int row = row0 + place;
$mask_row
                float highest = maximum[r];
                #pragma unroll
                for (int c = 0; c < S_COLS; ++c) {
                    const int q = c / LANES;
                    const int j = key0 + $col_place + c % LANES;
                    float seen_score = -INFINITY;
                    if (row < rows && j < stop) {
                        float score_of = score[r][c] * $scale;
$mask
                        seen_score = score_of;
                    }
                    score[r][c] = seen_score;
                    highest = seen_score > highest ? seen_score : highest;
                }
                tree[place * WG_COLS + x] = highest;
            }
            barrier(CLK_LOCAL_MEM_FENCE);

            #pragma unroll
            for (int n = 0; n < FETCHED; n += LANES) {
                const int e = item + n / LANES * WG_SIZE;
                const int at = (e / DEPTH * V_PITCH + e % DEPTH * LANES) * LANES;
$put_v
            }
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const int place = $row_place;
                float highest = tree[place * WG_COLS];
                #pragma unroll
                for (int n = 1; n < WG_COLS; ++n) {
                    const float other = tree[place * WG_COLS + n];
                    highest = other > highest ? other : highest;
                }
                const float shift = highest == -INFINITY ? 0 : highest;
                const float correction = exp_float(maximum[r] - shift);
                maximum[r] = highest;
                total[r] *= correction;
                #pragma unroll
                for (int c = 0; c < O_COLS; ++c) o[r][c] *= correction;
                #pragma unroll
                for (int q = 0; q < S_COLS / LANES; ++q) {
                    float4 weight;
                    weight.s0 = exp_float(score[r][q * LANES] - shift);
                    weight.s1 = exp_float(score[r][q * LANES + 1] - shift);
                    weight.s2 = exp_float(score[r][q * LANES + 2] - shift);
                    weight.s3 = exp_float(score[r][q * LANES + 3] - shift);
                    total[r] += (weight.s0 + weight.s2) + (weight.s1 + weight.s3);
                    const int at = (($col_place) / LANES * A_PITCH + place) * LANES;
                    $put_p
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);

$next_k
            {
$o_places
$results
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) tree[($row_place) * WG_COLS + x] = total[r];
        barrier(CLK_LOCAL_MEM_FENCE);
        {
$o_places
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const int place = $row_place;
                float weights = tree[place * WG_COLS];
                #pragma unroll
                for (int n = 1; n < WG_COLS; ++n) weights += tree[place * WG_COLS + n];
                const int row = row0 + place;
                if (row >= rows) continue;
$row_end
$finish
                #pragma unroll
                for (int q = 0; q < O_COLS / LANES; ++q) {
                    const int d = $col_place;
                    const int lanes = Dv - d;
                    if (lanes <= 0) continue;
                    const float4 sums = (float4)(o[r][q * LANES], o[r][q * LANES + 1],
                        o[r][q * LANES + 2], o[r][q * LANES + 3]);
$store
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
