typedef float8 float8_unaligned __attribute__((aligned(4)));
static void will_read_later_line(const __global void* p) { __builtin_prefetch((const void*)(ulong)p, 0, 2); }
static float8 load_float32x8(const __global float* p) {
    return *(const __global float8_unaligned*)p;
}
static void store_float32x8(float8 v, __global float* p) {
    *(__global float8_unaligned*)p = v;
}
static float8 load_part_float32x8(const __global float* p, int s, int n) {
    float lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int j = 0; j < n; ++j) lanes[j] = p[j * s];
    return (float8)(lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6], lanes[7]);
}
static void store_part_float32x8(float8 v, __global float* p, int s, int n) {
    const float lanes[8] = {v.s0, v.s1, v.s2, v.s3, v.s4, v.s5, v.s6, v.s7};
    for (int j = 0; j < n; ++j) p[j * s] = lanes[j];
}
// out = epilogue(a b): ROWS x COLS results at a time in registers, over all of K.
//
//                     panel of b: COLS columns
//                        +----------------+        A work-item works through tasks; a task is a
//                        |  k             |  K     block of rows by a block of columns of one
//             K          +----------------+        product z of the batch. It takes panel after
//       +-------------+  +----------------+        panel, and for each, rows group after group: the
//       | ROWS rows k |  |  ROWS x COLS   |        panel stays in the nearest caches.
//       +-------------+  |  accumulators  |
//             a          +----------------+        Rows beyond M repeat row M - 1 and are not
//                                                  stored; columns beyond N are zeros in b.
//
//     acc[r][c] = sum over k of a[row + r][k] * b[k][col + c]
#define ROWS 2 // rows of a register tile
#define VECS 4 // vectors side by side in it
#define LANES 8 // values a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel

typedef float8 vec;

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void matmul_2x32(
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
        const int row_block,
        const int col_block,
        const int row_tasks,
        const int col_tasks,
        const int tasks)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int row0 = task % row_tasks * row_block;
        const int col0 = task / row_tasks % col_tasks * col_block;
        const int row1 = row0 + row_block < M ? row0 + row_block : M;
        const int col1 = col0 + col_block < N ? col0 + col_block : N;
        const int z = task / row_tasks / col_tasks;
        const long a_at = a_offset;
        const long b_at = b_offset;
        const long out_at = out_offset;
        const long e0_at = e0_offset;
        const int share = (COLS * ROWS + row_block - 1) / row_block; // of a row of a panel
        for (int col = col0; col < col1; col += COLS) {
            for (int row = row0; row < row1; row += ROWS) {
                const __global float* a_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    a_rows[r] = a + a_at + (long)(row + r < M ? row + r : M - 1) * a_row;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                const __global float* panel = b + b_at + (long)(col / COLS) * K * COLS;
                const __global float* panels[2];
                #pragma unroll
                for (int p = 0; p < 2; ++p)
                    panels[p] = panel + (col + p * 16 < N ? (long)K * p * 16 : 0);
                const int before = (row - row0) / ROWS * share;
                const __global float* ahead = panel + (long)K * (COLS + before);
                for (int k = 0; k < K; ++k) {
                    will_read_later_line(ahead + k * share);
                    vec y[VECS];
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) {
                        y[v] = load_float32x8(panels[v / 2] + (k * 2 + v % 2) * LANES);
                    }
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const float x = a_rows[r][k];
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) acc[r][v] += x * y[v];
                    }
                }
                // The tile goes through memory, so that the epilogue's code is there few times.
                vec tile[ROWS * VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) tile[r * VECS + v] = acc[r][v];
                }
                if (M - row >= ROWS && N - col >= COLS) {
                    #pragma unroll 1
                    for (int r = 0; r < ROWS; ++r) {
                        const int i = row + r;
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            const int j = col + v * LANES;
                            const vec sum = tile[r * VECS + v];
                            const long at = out_at + (long)i * out_row + j;
                            const long at0 = e0_at + (long)i * e0_row + j;
                            const float8 x0 = load_float32x8(e0 + at0);
                            const float8 t0 = sum + x0;
                            store_float32x8(t0, out + at);
                        }
                    }
                    continue;
                }
                const int stored = (row + ROWS < M ? ROWS : M - row) * VECS;
                #pragma unroll 1
                for (int t = 0; t < stored; ++t) {
                    const int i = row + t / VECS;
                    const int j = col + t % VECS * LANES;
                    const int lanes = N - j;
                    if (lanes <= 0) continue;
                    const vec sum = tile[t];
                    const long at = out_at + (long)i * out_row + j;
                    const long at0 = e0_at + (long)i * e0_row + j;
                    const float8 x0 = lanes >= 8 ? load_float32x8(e0 + at0) : load_part_float32x8(e0 + at0, 1, lanes);
                    const float8 t0 = sum + x0;
                    if (lanes >= 8) {
                        store_float32x8(t0, out + at);
                    } else {
                        store_part_float32x8(t0, out + at, 1, lanes);
                    }
                }
            }
        }
    }
}
