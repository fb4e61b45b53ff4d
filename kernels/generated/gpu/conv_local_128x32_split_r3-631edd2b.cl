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
void conv_local_128x32_split_r3(
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
        __global float* restrict part,
        const int M,
        const int N,
        const int K,
        const int row_tasks,
        const int col_tasks,
        const int tasks,
        const int batches,
        const int part_k,
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
        const int part_z = task / row_tasks / col_tasks;
        const int z = part_z % batches;
        const int k_begin = part_z / batches * part_k;
        const int k_end = min(K, k_begin + part_k);
        const __global float* a_z = x + x_o + z * C;
        int a_channel = k_begin % C;
        int tap = k_begin / C;
        int t1, t2;
        t2 = tap % taps2;
        tap /= taps2;
        t1 = tap;
        const int a_k = item % 4 * 4;
        const int a_place = item / 4;
        int a_from0, a_from1, a_from2, a_from3, first1_0, first1_1, first1_2, first1_3, first2_0, first2_1, first2_2, first2_3;
        {
            int position = min(a0 + a_place + 0 * 32, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from0 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
            first1_0 = o1 * step1 + origin1;
            first2_0 = o2 * step2 + origin2;
        }
        {
            int position = min(a0 + a_place + 1 * 32, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from1 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
            first1_1 = o1 * step1 + origin1;
            first2_1 = o2 * step2 + origin2;
        }
        {
            int position = min(a0 + a_place + 2 * 32, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from2 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
            first1_2 = o1 * step1 + origin1;
            first2_2 = o2 * step2 + origin2;
        }
        {
            int position = min(a0 + a_place + 3 * 32, M - 1);
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            a_from3 = o0 * x_s0 + (o1 * step1 + origin1) * x_s1 + (o2 * step2 + origin2) * x_s2;
            first1_3 = o1 * step1 + origin1;
            first2_3 = o2 * step2 + origin2;
        }
        const int panels = (N + 31) / 32;
        const __global float* b_z = b + w_o + z * panels * (K * 32);
        const int b_place = item % 8 * 4;
        const int b_k = item / 8;
        int b_from;
        {
            b_from = min((b0 + b_place) / 32, panels - 1) * (K * 32) + (b0 + b_place) % 32;
            b_from += (b_k) * 32;
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
                const int channel = a_channel + a_k;
                const int tap_at = t1 * tap_step1 * x_s1 + t2 * tap_step2 * x_s2;
                a_piece0 = (float4)(0);
                if ((uint)(first1_0 + t1 * tap_step1) < (uint)size1 && (uint)(first2_0 + t2 * tap_step2) < (uint)size2) a_piece0 = load_aligned_float32x4(a_z + a_from0 + tap_at + channel);
                a_piece1 = (float4)(0);
                if ((uint)(first1_1 + t1 * tap_step1) < (uint)size1 && (uint)(first2_1 + t2 * tap_step2) < (uint)size2) a_piece1 = load_aligned_float32x4(a_z + a_from1 + tap_at + channel);
                a_piece2 = (float4)(0);
                if ((uint)(first1_2 + t1 * tap_step1) < (uint)size1 && (uint)(first2_2 + t2 * tap_step2) < (uint)size2) a_piece2 = load_aligned_float32x4(a_z + a_from2 + tap_at + channel);
                a_piece3 = (float4)(0);
                if ((uint)(first1_3 + t1 * tap_step1) < (uint)size1 && (uint)(first2_3 + t2 * tap_step2) < (uint)size2) a_piece3 = load_aligned_float32x4(a_z + a_from3 + tap_at + channel);
                a_channel += 16;
                if (a_channel == C) {
                    a_channel = 0;
                    ++t2;
                    if (t2 == taps2) {
                        t2 = 0;
                        ++t1;
                    }
                }
            }
            {
                b_piece0 = load_aligned_float32x4(b_z + b_from + (k_begin + 0 * 16) * 32);
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
                    const int channel = a_channel + a_k;
                    const int tap_at = t1 * tap_step1 * x_s1 + t2 * tap_step2 * x_s2;
                    a_piece0 = (float4)(0);
                    if ((uint)(first1_0 + t1 * tap_step1) < (uint)size1 && (uint)(first2_0 + t2 * tap_step2) < (uint)size2) a_piece0 = load_aligned_float32x4(a_z + a_from0 + tap_at + channel);
                    a_piece1 = (float4)(0);
                    if ((uint)(first1_1 + t1 * tap_step1) < (uint)size1 && (uint)(first2_1 + t2 * tap_step2) < (uint)size2) a_piece1 = load_aligned_float32x4(a_z + a_from1 + tap_at + channel);
                    a_piece2 = (float4)(0);
                    if ((uint)(first1_2 + t1 * tap_step1) < (uint)size1 && (uint)(first2_2 + t2 * tap_step2) < (uint)size2) a_piece2 = load_aligned_float32x4(a_z + a_from2 + tap_at + channel);
                    a_piece3 = (float4)(0);
                    if ((uint)(first1_3 + t1 * tap_step1) < (uint)size1 && (uint)(first2_3 + t2 * tap_step2) < (uint)size2) a_piece3 = load_aligned_float32x4(a_z + a_from3 + tap_at + channel);
                    a_channel += 16;
                    if (a_channel == C) {
                        a_channel = 0;
                        ++t2;
                        if (t2 == taps2) {
                            t2 = 0;
                            ++t1;
                        }
                    }
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
                if (j0 >= N) continue;
                store_aligned_float32x4(sums, part + ((long)part_z * M + i) * N + j0);
            }
        }
    }
}
