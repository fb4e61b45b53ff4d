static float4 load_aligned_float32x4(const __global float* p) {
    return *(const __global float4*)p;
}
// out = end(a b) for few rows: what counts is to read b once, and fast. A work-group makes ROWS x
// COLS results; its work-items share K in SLICES interleaved slices, summed in local memory.
//
//     sum(slice) = sum over k = slice, slice + SLICES, ... of a[i][k] * b[k][j]
//
// `partial` is an argument: a work-group of one item may be called by the player, which gives it
// room, while a variable of local memory would be a hidden argument that it does not know.
//
// A work-item reads 16 bytes of b at once where they lie side by side: COLS_EACH columns of a k, or
// K_EACH values of a column. Neighbours read neighbouring elements.
#define ROWS 4 // of a, at once
#define COL_ITEMS 16 // work-items along the columns
#define SLICES 16 // and along K
#define COLS_EACH 4 // columns of a work-item
#define K_EACH 1 // values along K that it reads at once
#define COLS (COL_ITEMS * COLS_EACH)
#define WG_SIZE (COL_ITEMS * SLICES)

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void matmul_rows_4x64_split(
        __global const float* restrict a,
        const int a_offset,
        const int a_row,
        __global const float* restrict b,
        const int b_offset,
        const int b_row,
        __global float* restrict part,
        const int M,
        const int N,
        const int K,
        const int row_tasks,
        const int col_tasks,
        const int tasks,
        const int batches,
        const int part_k,
        __local float* restrict partial)
{
    const int item = get_local_id(0);
    const int col_item = item % COL_ITEMS;
    const int slice = item / COL_ITEMS;
    const int task = get_group_id(0); {
        const int a0 = task % row_tasks * ROWS;
        const int b0 = task / row_tasks % col_tasks * COLS;
        const int part_z = task / row_tasks / col_tasks;
        const int z = part_z % batches;
        const int k_begin = part_z / batches * part_k;
        const int k_end = min(K, k_begin + part_k);
        const long a_at = a_offset;
        const long b_at = b_offset;
        const __global float* a_z = a + a_at;
        const __global float* b_z = b + b_at;
        int b_from;
        b_from = min(b0 + col_item * 4, b_row - 4);
        const int a_place0 = min(a0 + 0, M - 1);
        const int a_place1 = min(a0 + 1, M - 1);
        const int a_place2 = min(a0 + 2, M - 1);
        const int a_place3 = min(a0 + 3, M - 1);
        float4 sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        #pragma unroll 4
        for (int k = k_begin + slice * K_EACH; k < k_end; k += SLICES * K_EACH) {
            const float4 b_piece = load_aligned_float32x4(b_z + b_from + (k) * b_row);
            sum0 += a_z[a_place0 * a_row + k] * b_piece;
            sum1 += a_z[a_place1 * a_row + k] * b_piece;
            sum2 += a_z[a_place2 * a_row + k] * b_piece;
            sum3 += a_z[a_place3 * a_row + k] * b_piece;
        }
        partial[(slice * ROWS + 0) * COLS + col_item * COLS_EACH + 0] = sum0.s0;
        partial[(slice * ROWS + 0) * COLS + col_item * COLS_EACH + 1] = sum0.s1;
        partial[(slice * ROWS + 0) * COLS + col_item * COLS_EACH + 2] = sum0.s2;
        partial[(slice * ROWS + 0) * COLS + col_item * COLS_EACH + 3] = sum0.s3;
        partial[(slice * ROWS + 1) * COLS + col_item * COLS_EACH + 0] = sum1.s0;
        partial[(slice * ROWS + 1) * COLS + col_item * COLS_EACH + 1] = sum1.s1;
        partial[(slice * ROWS + 1) * COLS + col_item * COLS_EACH + 2] = sum1.s2;
        partial[(slice * ROWS + 1) * COLS + col_item * COLS_EACH + 3] = sum1.s3;
        partial[(slice * ROWS + 2) * COLS + col_item * COLS_EACH + 0] = sum2.s0;
        partial[(slice * ROWS + 2) * COLS + col_item * COLS_EACH + 1] = sum2.s1;
        partial[(slice * ROWS + 2) * COLS + col_item * COLS_EACH + 2] = sum2.s2;
        partial[(slice * ROWS + 2) * COLS + col_item * COLS_EACH + 3] = sum2.s3;
        partial[(slice * ROWS + 3) * COLS + col_item * COLS_EACH + 0] = sum3.s0;
        partial[(slice * ROWS + 3) * COLS + col_item * COLS_EACH + 1] = sum3.s1;
        partial[(slice * ROWS + 3) * COLS + col_item * COLS_EACH + 2] = sum3.s2;
        partial[(slice * ROWS + 3) * COLS + col_item * COLS_EACH + 3] = sum3.s3;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = item; e < ROWS * COLS; e += WG_SIZE) {
            const int i = a0 + e / COLS;
            const int j = b0 + e % COLS;
            if (i >= M || j >= N) continue;
            float sum = partial[e];
            for (int s = 1; s < SLICES; ++s) sum += partial[s * (ROWS * COLS) + e];
            {
                part[((long)part_z * M + i) * N + j] = sum;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
