static float4 load_aligned_float32x4(const __global float* p) {
    return *(const __global float4*)p;
}
static void store_aligned_float32x4(float4 v, __global float* p) {
    *(__global float4*)p = v;
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
#define WG_COLS 16 // work-items along N
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

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void conv_local_128x64_r3(
        __global const float* restrict x,
        const int x_o,
        const int x_s0,
        const int x_s1,
        const int out1,
        const int size1,
        const int taps1,
        const int step1,
        const int tap_step1,
        const int origin1,
        const int x_s2,
        const int out2,
        const int size2,
        const int taps2,
        const int step2,
        const int tap_step2,
        const int origin2,
        const int C,
        __global const float* restrict b,
        __global float* restrict y0,
        __global const float* restrict e0,
        __global const float* restrict e1,
        const int y0_o,
        const int y0_s0,
        const int e0_o,
        const int e0_s0,
        const int e1_o,
        const int e1_s0,
        const int M,
        const int N,
        const int K,
        const int row_tasks,
        const int col_tasks,
        const int tasks,
        const int w_o)
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
        const __global float* a_z = x + x_o + z * C;
        const int a_k = item % 4 * 4;
        const int a_place = item / 4;
        int a_from0, a_from1;
        {
            int position = min(a0 + a_place + 0 * 64, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from0 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
        }
        {
            int position = min(a0 + a_place + 1 * 64, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from1 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
        }
        const int panels = (N + 31) / 32;
        const __global float* b_z = b + w_o + z * panels * (K * 32);
        const int b_place = item % 16 * 4;
        const int b_k = item / 16;
        int b_from;
        {
            b_from = min((b0 + b_place) / 32, panels - 1) * (K * 32) + (b0 + b_place) % 32;
            b_from += (b_k) * 32;
        }
        float4 a_piece0 = (float4)(0), a_piece1 = (float4)(0);
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
                const int channel = k_begin + a_k;
                const int tap_at = 0;
                a_piece0 = load_aligned_float32x4(a_z + a_from0 + tap_at + channel);
                a_piece1 = load_aligned_float32x4(a_z + a_from1 + tap_at + channel);
            }
            {
                b_piece0 = load_aligned_float32x4(b_z + b_from + (k_begin + 0 * 16) * 32);
            }
            {
                __local float* a_to = a_tile + 0 * 2112;
                a_to[(a_k + 0) * 132 + a_place + 0 * 64] = a_piece0.s0;
                a_to[(a_k + 1) * 132 + a_place + 0 * 64] = a_piece0.s1;
                a_to[(a_k + 2) * 132 + a_place + 0 * 64] = a_piece0.s2;
                a_to[(a_k + 3) * 132 + a_place + 0 * 64] = a_piece0.s3;
                a_to[(a_k + 0) * 132 + a_place + 1 * 64] = a_piece1.s0;
                a_to[(a_k + 1) * 132 + a_place + 1 * 64] = a_piece1.s1;
                a_to[(a_k + 2) * 132 + a_place + 1 * 64] = a_piece1.s2;
                a_to[(a_k + 3) * 132 + a_place + 1 * 64] = a_piece1.s3;
            }
            {
                __local float* b_to = b_tile + 0 * 1088;
                *(__local float4*)(b_to + (b_k + 0 * 16) * 68 + b_place) = b_piece0;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        int turn = 0;
        for (int k0 = k_begin; k0 < k_end; k0 += K_STEP) {
            const int is_more = k0 + K_STEP < k_end;
            if (is_more) {
                {
                    const int channel = k0 + K_STEP + a_k;
                    const int tap_at = 0;
                    a_piece0 = load_aligned_float32x4(a_z + a_from0 + tap_at + channel);
                    a_piece1 = load_aligned_float32x4(a_z + a_from1 + tap_at + channel);
                }
                {
                    b_piece0 = load_aligned_float32x4(b_z + b_from + (k0 + K_STEP + 0 * 16) * 32);
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
                    a_to[(a_k + 0) * 132 + a_place + 0 * 64] = a_piece0.s0;
                    a_to[(a_k + 1) * 132 + a_place + 0 * 64] = a_piece0.s1;
                    a_to[(a_k + 2) * 132 + a_place + 0 * 64] = a_piece0.s2;
                    a_to[(a_k + 3) * 132 + a_place + 0 * 64] = a_piece0.s3;
                    a_to[(a_k + 0) * 132 + a_place + 1 * 64] = a_piece1.s0;
                    a_to[(a_k + 1) * 132 + a_place + 1 * 64] = a_piece1.s1;
                    a_to[(a_k + 2) * 132 + a_place + 1 * 64] = a_piece1.s2;
                    a_to[(a_k + 3) * 132 + a_place + 1 * 64] = a_piece1.s3;
                }
                {
                    __local float* b_to = b_tile + turn * 1088;
                    *(__local float4*)(b_to + (b_k + 0 * 16) * 68 + b_place) = b_piece0;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int i = a0 + LANES * (item_row + r / LANES * WG_ROWS) + r % LANES;
            if (i >= M) continue;
            int flat = i;
            int i0;
            i0 = flat;
            const int y0_at = y0_o + i0 * y0_s0;
            const int e0_at = e0_o + i0 * e0_s0;
            const int e1_at = e1_o + i0 * e1_s0;
            #pragma unroll
            for (int q = 0; q < COLS / LANES; ++q) {
                const int j0 = b0 + LANES * (item_col + q * WG_COLS);
                const float4 sums = acc[r][q];
                if (j0 >= N) continue;
                const float4 sum = sums;
                const int j = j0;
                const int channel = z * N + j;
                const float4 v_e0 = load_aligned_float32x4(e0 + e0_at + channel);
                const float4 v_e1 = load_aligned_float32x4(e1 + e1_at + channel);
                const float4 z0 = sum + v_e0;
                const float4 z1 = v_e1 + z0;
                const float4 z2 = 0.0f;
                const float4 z3 = z2 > z1 ? z2 : z1;
                store_aligned_float32x4(z3, y0 + y0_at + channel);
            }
        }
    }
}
