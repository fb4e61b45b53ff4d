// Copies A into dense rows, where matmul_cpu cannot read it in place:
//
//     packed[z][row][col] = x[z][row, col]
//
// A task is ROW_BLOCK rows of LANES columns.
#define LANES $lanes // values a vector holds
#define ROW_BLOCK $block // rows a task copies

$head
$parameters)
{
    const int col_blocks = (K + LANES - 1) / LANES;
    const int row_blocks = (M + ROW_BLOCK - 1) / ROW_BLOCK;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int col = task % col_blocks * LANES;
        const int row0 = task / col_blocks % row_blocks * ROW_BLOCK;
        const int row1 = row0 + ROW_BLOCK < M ? row0 + ROW_BLOCK : M;
        const int z = task / col_blocks / row_blocks;
        const int lanes = K - col;
$batch
        for (int row = row0; row < row1; ++row) {
            const long at = $at;
            const long to = ((long)z * M + row) * K + col;
            if (lanes >= LANES) {
                const $vec value = $load;
                $store
            } else {
                const $vec value = $load_part;
                $store_part
            }
        }
    }
}
