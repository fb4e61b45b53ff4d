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
#define ROWS $rows // rows of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // columns of a register tile, and of a panel

typedef $vec vec;

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
$share
        for (int col = col0; col < col1; col += COLS) {
            for (int row = row0; row < row1; row += ROWS) {
                const __global $a_type* a_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    a_rows[r] = a + a_at + (long)(row + r < M ? row + r : M - 1) * a_row;
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
$panel
                for (int k = 0; k < K; ++k) {
$fetch
                    vec y[VECS];
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) {
$load_b
                    }
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const $acc_type x = $load_a;
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
