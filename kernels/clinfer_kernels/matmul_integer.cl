// out = epilogue(a b) of 8-bit integers: ROWS x COLS sums of int32 at a time in registers.
//
//                     panel of b: COLS columns
//                        +----------------+        As in matmul_cpu; a step along K takes four
//                        | where they begin        neighbours at once: an int of a's row, the same
//             K          |  k, 4 bytes    |  K/4   for all lanes, with four bytes of each column.
//       +-------------+  +----------------+
//       | ROWS rows k |  |  ROWS x COLS   |        The first row of a panel is what sums begin with:
//       +-------------+  |  accumulators  |        what turning signed bytes of a into unsigned ones
//             a          +----------------+        adds is taken off there. Bytes beyond K are zeros
//                                                  in b, columns beyond N too.
#define ROWS $rows // rows of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // sums a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel
#define FLIP $flip // turns bytes of a into unsigned ones

typedef int$lanes vec;

$head
$parameters)
{
    const int whole = K / 4; // steps along K of four bytes
    const int rest = K % 4; // bytes after them
    const long panel_size = (long)((K + 3) / 4 + 1) * COLS;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int row0 = task % row_tasks * row_block;
        const int col0 = task / row_tasks % col_tasks * col_block;
        const int row1 = row0 + row_block < M ? row0 + row_block : M;
        const int col1 = col0 + col_block < N ? col0 + col_block : N;
        const int z = task / row_tasks / col_tasks;
$batch
        for (int col = col0; col < col1; col += COLS) {
            const __global int* panel = b + b_at + col / COLS * panel_size;
            for (int row = row0; row < row1; row += ROWS) {
                const __global uchar* a_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const int i = row + r < M ? row + r : M - 1;
                    a_rows[r] = (const __global uchar*)a + a_at + (long)i * a_row;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = $load_begin;
                }
                const __global int* next_b = panel + COLS;
                for (int k = 0; k < whole; ++k) {
                    vec y[VECS];
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) y[v] = $load_b;
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const int x = bytes4_all(a_rows[r] + 4 * k) ^ FLIP;
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) acc[r][v] = dot4_$lanes(acc[r][v], x, y[v]);
                    }
                    next_b += COLS;
                }
                if (rest) {
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const int x = bytes4_some(a_rows[r] + 4 * whole, rest) ^ FLIP;
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            acc[r][v] = dot4_$lanes(acc[r][v], x, $load_b);
                        }
                    }
                }
$straight
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
