// out = epilogue(a b) of a in bytes and b in codes of few bits, both in blocks along K:
//
//     a[k] = q[k] * scale_a[k / BLOCK]           b[k][c] = (code[k][c] - zero[c]) * scale[c]
//     sum over a block of a[k] b[k][c]
//         = (sum of q[k] code[k][c] * scale_a - zero[c] * sum of q[k] * scale_a) * scale[c]
//
// with integer sums, four products a lane at once: codes are the unsigned bytes. Codes lie in panels
// of COLS columns, an int a lane: of 8 bits those of four neighbours along K, of 4 bits those of
// eight, the first four in the lower halves of the bytes. `parts` has scale_a and what zero[c] is
// multiplied with, for each row and block.
#define ROWS $rows // rows of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel
#define PACKED $packed // codes in a byte
#define AHEAD 4096 // bytes of b from those that are multiplied to those asked for

typedef float$lanes vec;
typedef int$lanes ints;

$head
$parameters)
{
    const int blocks = K / block;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int row0 = task % row_tasks * row_block;
        const int col0 = task / row_tasks * col_block;
        const int row1 = row0 + row_block < M ? row0 + row_block : M;
        const int col1 = col0 + col_block < N ? col0 + col_block : N;
$batch
        for (int col = col0; col < col1; col += COLS) {
            const long panel = col / COLS;
            for (int row = row0; row < row1; row += ROWS) {
                const __global uchar* q_rows[ROWS];
                const __global float* part_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const long i = row + r < M ? row + r : M - 1;
                    q_rows[r] = q + i * K;
                    part_rows[r] = parts + i * blocks * 2;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                const __global int* next_b = b + panel * (K / PACKED / 4) * COLS;
                long at_scale = panel * blocks * COLS;
                for (int first = 0; first < K; first += block) {
                    ints sums[ROWS][VECS];
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) sums[r][v] = 0;
                    }
                    for (int k = first; k < first + block; k += 4 * PACKED) {
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            const ints stored = $load_b;
                            ask_for((const __global char*)(next_b + v * LANES) + AHEAD);
                            #pragma unroll
                            for (int p = 0; p < PACKED; ++p) {
                                const ints code = $code;
                                #pragma unroll
                                for (int r = 0; r < ROWS; ++r) {
                                    const ints x = bytes4_all(q_rows[r] + k + 4 * p);
                                    sums[r][v] = dots4_$lanes(sums[r][v], code, x);
                                }
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
                            const vec sum = $sums;
                            acc[r][v] += (sum * part_rows[r][0] - zero * part_rows[r][1]) * scale;
                        }
                    }
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) part_rows[r] += 2;
                    at_scale += COLS;
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
