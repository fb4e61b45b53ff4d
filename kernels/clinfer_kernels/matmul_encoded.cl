// out = epilogue(a b) with b in blocks of few bits, decoded in registers:
//
//     b[k][c] = (code[k][c] - zero[k / BLOCK][c]) * scale[k / BLOCK][c]
//     sum over a block of a[k] b[k][c] = (sum of a[k] code[k][c] - zero * sum of a[k]) * scale
//
// Codes lie in panels of COLS columns as in matmul_cpu; of fewer than 8 bits, a byte holds those of
// neighbours along K, the lowest bits first. Scales and zero points lie in panels of their own.
#define ROWS $rows // rows of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel
#define PACKED $packed // codes in a byte

typedef float$lanes vec;
typedef int$lanes codes;
$table

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int row0 = task % row_tasks * row_block;
        const int col0 = task / row_tasks % col_tasks * col_block;
        const int row1 = row0 + row_block < M ? row0 + row_block : M;
        const int col1 = col0 + col_block < N ? col0 + col_block : N;
        const int z = task / row_tasks / col_tasks;
$batch
        for (int col = col0; col < col1; col += COLS) {
            const long panel = col / COLS;
            for (int row = row0; row < row1; row += ROWS) {
                const __global float* a_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    a_rows[r] = a + a_at + (long)(row + r < M ? row + r : M - 1) * a_row;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                const __global $code_type* next_b = b + panel * (K / PACKED) * COLS;
                for (int first = 0; first < K; first += block) {
                    const long at_scale = (panel * (K / block) + first / block) * COLS;
                    vec part[ROWS][VECS];
                    float sums[ROWS];
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        sums[r] = 0;
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) part[r][v] = 0;
                    }
                    for (int k = first; k < first + block; k += PACKED) {
                        float x[ROWS][PACKED];
                        #pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            #pragma unroll
                            for (int p = 0; p < PACKED; ++p) {
                                x[r][p] = a_rows[r][k + p];
                                sums[r] += x[r][p];
                            }
                        }
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            const codes stored_b = $load_b;
                            #pragma unroll
                            for (int p = 0; p < PACKED; ++p) {
                                const codes code = $code;
                                const vec y = $decode;
                                #pragma unroll
                                for (int r = 0; r < ROWS; ++r) part[r][v] += x[r][p] * y;
                            }
                        }
                        next_b += COLS;
                    }
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) {
                        const vec scale = $load_scale;
                        const vec zero = $load_zero;
                        #pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            acc[r][v] += (part[r][v] - sums[r] * zero) * scale;
                        }
                    }
                }
                // The tile goes through memory, so that the epilogue's code is there few times.
                vec tile[ROWS * VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) tile[r * VECS + v] = acc[r][v];
                }
$whole
                const int stored = (row + ROWS < M ? ROWS : M - row) * VECS;
                #pragma unroll 1
                for (int t = 0; t < stored; ++t) {
                    const int i = row + t / VECS;
                    const int j = col + t % VECS * LANES;
                    const int lanes = N - j;
                    if (lanes <= 0) continue;
                    const vec sum = tile[t];
$epilogue
                }
            }
        }
    }
}
