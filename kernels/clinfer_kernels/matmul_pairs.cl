// out = epilogue(a b) of bfloat16: ROWS x COLS sums of float32 at a time in registers.
//
//                     panel of b: COLS columns
//                        +----------------+        As in matmul_cpu; a step along K takes two
//             K          |  k, two each   |  K/2   neighbours at once: an int of a's row, the same
//       +-------------+  +----------------+        for all lanes, with two numbers of each column.
//       | ROWS rows k |  |  ROWS x COLS   |
//       +-------------+  |  accumulators  |        A number beyond K is zero in b, and in the last
//             a          +----------------+        int of a row; columns beyond N are zero too.
#define ROWS $rows // rows of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // sums a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel

typedef float$lanes vec;
typedef int$lanes pairs;

$head
$parameters)
{
    const int whole = K / 2; // steps along K of two numbers
    const int rest = K % 2; // numbers after them
    const long panel_size = (long)((K + 1) / 2) * COLS;
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
                const __global ushort* a_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const int i = row + r < M ? row + r : M - 1;
                    a_rows[r] = a + a_at + (long)i * a_row;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                const __global int* next_b = panel;
                for (int k = 0; k < whole; ++k) {
                    pairs y[VECS];
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) y[v] = $load_b;
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const int x = bytes4_all((const __global uchar*)(a_rows[r] + 2 * k));
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) acc[r][v] = dot2_$lanes(acc[r][v], x, y[v]);
                    }
                    next_b += COLS;
                }
                if (rest) {
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const int x = a_rows[r][2 * whole];
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            acc[r][v] = dot2_$lanes(acc[r][v], x, $load_b);
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
