// out = epilogue(a b): a work-group makes TILE_M x TILE_N results, walking along K in steps.
//
//                     b
//                    +--------------+        A step: the work-group copies a TILE_M x K_STEP piece
//             K_STEP |   b_tile     |        of a and a K_STEP x TILE_N piece of b into local memory
//        a           +--------------+        (zeros beyond the edges), then every work-item adds the
//    +--------+      +--------------+        products of its ROWS x COLS results.
//    |        |      |              |
//    | a_tile |      |  registers   |        Work-item (x, y) owns the results at rows
//    |        |      |              | TILE_M y + r WG_ROWS, columns x + c WG_COLS of the tile:
//    +--------+      +--------------+        neighbours store neighbouring columns.
//      K_STEP             TILE_N
#define WG_ROWS 16 // work-items along M
#define WG_COLS 16 // work-items along N
#define ROWS 4 // results of a work-item along M
#define COLS 4 // and along N
#define K_STEP 16 // depth of the tiles in local memory
#define TILE_M (WG_ROWS * ROWS)
#define TILE_N (WG_COLS * COLS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define A_PITCH (TILE_M + 1) // columns of a_tile start in different banks
#define B_PITCH (TILE_N + 1)

__kernel __attribute__((reqd_work_group_size(16, 16, 1)))
void matmul_local_64x64(
        __global const float* restrict a,
        const int a_offset,
        const int a_row,
        __global const float* restrict b,
        const int b_offset,
        const int b_row,
        __global float* restrict out,
        const int out_offset,
        const int out_row,
        __global const float* restrict e0,
        const int e0_offset,
        const int e0_row,
        const int M,
        const int N,
        const int K,
        const int row_tasks,
        const int col_tasks,
        const int tasks)
{
    __local float a_tile[K_STEP * A_PITCH];
    __local float b_tile[K_STEP * B_PITCH];
    const int x = get_local_id(0);
    const int y = get_local_id(1);
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int row0 = task % row_tasks * TILE_M;
        const int col0 = task / row_tasks % col_tasks * TILE_N;
        const int z = task / row_tasks / col_tasks;
        const long a_at = a_offset;
        const long b_at = b_offset;
        const long out_at = out_offset;
        const long e0_at = e0_offset;
        float acc[ROWS][COLS];
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            #pragma unroll
            for (int c = 0; c < COLS; ++c) acc[r][c] = 0;
        }
        for (int k0 = 0; k0 < K; k0 += K_STEP) {
            for (int e = y * WG_COLS + x; e < TILE_M * K_STEP; e += WG_SIZE) {
                const int tile_row = e / K_STEP;
                const int tile_k = e % K_STEP;
                const int i = row0 + tile_row;
                const int k = k0 + tile_k;
                float value = 0;
                if (i < M && k < K) value = a[a_at + (long)i * a_row + k];
                a_tile[tile_k * A_PITCH + tile_row] = value;
            }
            for (int e = y * WG_COLS + x; e < TILE_N * K_STEP; e += WG_SIZE) {
                const int tile_col = e % TILE_N;
                const int tile_k = e / TILE_N;
                const int j = col0 + tile_col;
                const int k = k0 + tile_k;
                float value = 0;
                if (j < N && k < K) value = b[b_at + (long)k * b_row + j];
                b_tile[tile_k * B_PITCH + tile_col] = value;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int k = 0; k < K_STEP; ++k) {
                float a_value[ROWS];
                float b_value[COLS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) a_value[r] = a_tile[k * A_PITCH + y + r * WG_ROWS];
                #pragma unroll
                for (int c = 0; c < COLS; ++c) b_value[c] = b_tile[k * B_PITCH + x + c * WG_COLS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int c = 0; c < COLS; ++c) acc[r][c] += a_value[r] * b_value[c];
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            #pragma unroll
            for (int c = 0; c < COLS; ++c) {
                const int i = row0 + y + r * WG_ROWS;
                const int j = col0 + x + c * WG_COLS;
                if (i >= M || j >= N) continue;
                const float sum = acc[r][c];
                const long at = out_at + (long)i * out_row + j;
                const long at0 = e0_at + (long)i * e0_row + j;
                const float x0 = e0[at0];
                const float t0 = sum + x0;
                out[at] = t0;
            }
        }
    }
}
