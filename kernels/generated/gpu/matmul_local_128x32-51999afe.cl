static float4 load_aligned_float32x4(const __global float* p) {
    return *(const __global float4*)p;
}
// out = end(a b): a work-group makes TILE_M x TILE_N results, walking along K in steps.
//
//                      b               A step: pieces of a and b, TILE_M x K_STEP and K_STEP x
//                    +--------------+  TILE_N, lie in local memory as [k][place]. While the
//             K_STEP |    b_tile    |  work-items add the step's products, the pieces of the next
//        a           +--------------+  one are on their way to registers, from where they go to the
//    +--------+      +--------------+  other of two tiles: one barrier a step.
//    |        |      | [][]    [][] |
//    | a_tile |      | [][]    [][] |  A work-item owns ROWS x COLS results in blocks of
//    |        |      |              |  LANES x LANES: block (p, q) is at rows
//    +--------+      +--------------+  LANES (item_row + p WG_ROWS) and columns
//      K_STEP             TILE_N       LANES (item_col + q WG_COLS): neighbours read neighbours.
#define WG_ROWS 16 // work-items along M
#define WG_COLS 8 // work-items along N
#define ROWS 8 // results of a work-item along M
#define COLS 4 // and along N
#define K_STEP 16 // depth of the tiles in local memory
#define UNROLL 4 // steps of k that a compiler may mix; more of them need more registers
#define LANES 4 // of a vector
#define TILE_M (WG_ROWS * ROWS)
#define TILE_N (WG_COLS * COLS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define A_PITCH (TILE_M + LANES) // of a tile's rows: vectors stay aligned, columns change banks
#define B_PITCH (TILE_N + LANES)

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void matmul_local_128x32(
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
    __local float a_tile[2 * K_STEP * A_PITCH] __attribute__((aligned(16)));
    __local float b_tile[2 * K_STEP * B_PITCH] __attribute__((aligned(16)));
    const int item = get_local_id(0);
    const int item_col = item % WG_COLS;
    const int item_row = item / WG_COLS;
    const int task = get_group_id(0); {
        const int a0 = task % row_tasks * TILE_M;
        const int b0 = task / row_tasks % col_tasks * TILE_N;
        const int z = task / row_tasks / col_tasks;
        const int k_begin = 0;
        const int k_end = K;
        const long a_at = a_offset;
        const long b_at = b_offset;
        const long out_at = out_offset;
        const long e0_at = e0_offset;
        const __global float* a_z = a + a_at;
        const int a_k = item % 4 * 4;
        const int a_place = item / 4;
        int a_from0, a_from1, a_from2, a_from3;
        {
            a_from0 = min(a0 + a_place + 0 * 32, M - 1) * a_row;
        }
        {
            a_from1 = min(a0 + a_place + 1 * 32, M - 1) * a_row;
        }
        {
            a_from2 = min(a0 + a_place + 2 * 32, M - 1) * a_row;
        }
        {
            a_from3 = min(a0 + a_place + 3 * 32, M - 1) * a_row;
        }
        const __global float* b_z = b + b_at;
        const int b_place = item % 8 * 4;
        const int b_k = item / 8;
        int b_from;
        {
            b_from = min(b0 + b_place, b_row - 4);
            b_from += (b_k) * b_row;
        }
        float4 a_piece0 = (float4)(0), a_piece1 = (float4)(0), a_piece2 = (float4)(0), a_piece3 = (float4)(0);
        float4 b_piece0 = (float4)(0);
        float4 acc[ROWS][COLS / LANES];
        acc[0][0] = (float4)(0);
        acc[1][0] = (float4)(0);
        acc[2][0] = (float4)(0);
        acc[3][0] = (float4)(0);
        acc[4][0] = (float4)(0);
        acc[5][0] = (float4)(0);
        acc[6][0] = (float4)(0);
        acc[7][0] = (float4)(0);
        if (k_begin < k_end) {
            {
                a_piece0 = load_aligned_float32x4(a_z + a_from0 + k_begin + a_k);
                a_piece1 = load_aligned_float32x4(a_z + a_from1 + k_begin + a_k);
                a_piece2 = load_aligned_float32x4(a_z + a_from2 + k_begin + a_k);
                a_piece3 = load_aligned_float32x4(a_z + a_from3 + k_begin + a_k);
            }
            {
                b_piece0 = load_aligned_float32x4(b_z + b_from + (k_begin + 0 * 16) * b_row);
            }
            {
                __local float* a_to = a_tile + 0 * 2112;
                a_to[(a_k + 0) * 132 + a_place + 0 * 32] = a_piece0.s0;
                a_to[(a_k + 1) * 132 + a_place + 0 * 32] = a_piece0.s1;
                a_to[(a_k + 2) * 132 + a_place + 0 * 32] = a_piece0.s2;
                a_to[(a_k + 3) * 132 + a_place + 0 * 32] = a_piece0.s3;
                a_to[(a_k + 0) * 132 + a_place + 1 * 32] = a_piece1.s0;
                a_to[(a_k + 1) * 132 + a_place + 1 * 32] = a_piece1.s1;
                a_to[(a_k + 2) * 132 + a_place + 1 * 32] = a_piece1.s2;
                a_to[(a_k + 3) * 132 + a_place + 1 * 32] = a_piece1.s3;
                a_to[(a_k + 0) * 132 + a_place + 2 * 32] = a_piece2.s0;
                a_to[(a_k + 1) * 132 + a_place + 2 * 32] = a_piece2.s1;
                a_to[(a_k + 2) * 132 + a_place + 2 * 32] = a_piece2.s2;
                a_to[(a_k + 3) * 132 + a_place + 2 * 32] = a_piece2.s3;
                a_to[(a_k + 0) * 132 + a_place + 3 * 32] = a_piece3.s0;
                a_to[(a_k + 1) * 132 + a_place + 3 * 32] = a_piece3.s1;
                a_to[(a_k + 2) * 132 + a_place + 3 * 32] = a_piece3.s2;
                a_to[(a_k + 3) * 132 + a_place + 3 * 32] = a_piece3.s3;
            }
            {
                __local float* b_to = b_tile + 0 * 576;
                *(__local float4*)(b_to + (b_k + 0 * 16) * 36 + b_place) = b_piece0;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        int turn = 0;
        for (int k0 = k_begin; k0 < k_end; k0 += K_STEP) {
            const int is_more = k0 + K_STEP < k_end;
            if (is_more) {
                {
                    a_piece0 = load_aligned_float32x4(a_z + a_from0 + k0 + K_STEP + a_k);
                    a_piece1 = load_aligned_float32x4(a_z + a_from1 + k0 + K_STEP + a_k);
                    a_piece2 = load_aligned_float32x4(a_z + a_from2 + k0 + K_STEP + a_k);
                    a_piece3 = load_aligned_float32x4(a_z + a_from3 + k0 + K_STEP + a_k);
                }
                {
                    b_piece0 = load_aligned_float32x4(b_z + b_from + (k0 + K_STEP + 0 * 16) * b_row);
                }
            }
            const __local float* a_from_tile = a_tile + turn * (K_STEP * A_PITCH) + item_row * LANES;
            const __local float* b_from_tile = b_tile + turn * (K_STEP * B_PITCH) + item_col * LANES;
            #pragma unroll UNROLL
            for (int k = 0; k < K_STEP; ++k) {
                const __local float* a_step = a_from_tile + k * A_PITCH;
                const __local float* b_step = b_from_tile + k * B_PITCH;
                const float4 a0 = *(const __local float4*)(a_step);
                const float4 a1 = *(const __local float4*)(a_step + 64);
                const float4 b0 = *(const __local float4*)(b_step);
                acc[0][0] += a0.s0 * b0;
                acc[1][0] += a0.s1 * b0;
                acc[2][0] += a0.s2 * b0;
                acc[3][0] += a0.s3 * b0;
                acc[4][0] += a1.s0 * b0;
                acc[5][0] += a1.s1 * b0;
                acc[6][0] += a1.s2 * b0;
                acc[7][0] += a1.s3 * b0;
            }
            turn ^= 1;
            if (is_more) {
                {
                    __local float* a_to = a_tile + turn * 2112;
                    a_to[(a_k + 0) * 132 + a_place + 0 * 32] = a_piece0.s0;
                    a_to[(a_k + 1) * 132 + a_place + 0 * 32] = a_piece0.s1;
                    a_to[(a_k + 2) * 132 + a_place + 0 * 32] = a_piece0.s2;
                    a_to[(a_k + 3) * 132 + a_place + 0 * 32] = a_piece0.s3;
                    a_to[(a_k + 0) * 132 + a_place + 1 * 32] = a_piece1.s0;
                    a_to[(a_k + 1) * 132 + a_place + 1 * 32] = a_piece1.s1;
                    a_to[(a_k + 2) * 132 + a_place + 1 * 32] = a_piece1.s2;
                    a_to[(a_k + 3) * 132 + a_place + 1 * 32] = a_piece1.s3;
                    a_to[(a_k + 0) * 132 + a_place + 2 * 32] = a_piece2.s0;
                    a_to[(a_k + 1) * 132 + a_place + 2 * 32] = a_piece2.s1;
                    a_to[(a_k + 2) * 132 + a_place + 2 * 32] = a_piece2.s2;
                    a_to[(a_k + 3) * 132 + a_place + 2 * 32] = a_piece2.s3;
                    a_to[(a_k + 0) * 132 + a_place + 3 * 32] = a_piece3.s0;
                    a_to[(a_k + 1) * 132 + a_place + 3 * 32] = a_piece3.s1;
                    a_to[(a_k + 2) * 132 + a_place + 3 * 32] = a_piece3.s2;
                    a_to[(a_k + 3) * 132 + a_place + 3 * 32] = a_piece3.s3;
                }
                {
                    __local float* b_to = b_tile + turn * 576;
                    *(__local float4*)(b_to + (b_k + 0 * 16) * 36 + b_place) = b_piece0;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int i = a0 + LANES * (item_row + r / LANES * WG_ROWS) + r % LANES;
            if (i >= M) continue;
            #pragma unroll
            for (int q = 0; q < COLS / LANES; ++q) {
                const int j0 = b0 + LANES * (item_col + q * WG_COLS);
                const float4 sums = acc[r][q];
                const float lanes[LANES] = {sums.s0, sums.s1, sums.s2, sums.s3};
                #pragma unroll
                for (int lane = 0; lane < LANES; ++lane) {
                    const int j = j0 + lane;
                    if (j >= N) continue;
                    const float sum = lanes[lane];
                    const long at = out_at + (long)i * out_row + j;
                    const long at0 = e0_at + (long)i * e0_row + j;
                    const float x0 = e0[at0];
                    const float t0 = sum + x0;
                    out[at] = t0;
                }
            }
        }
    }
}
