// Packs b [K, N], 8-bit integers of any strides, into panels of COLS columns for matmul_integer.
//
//     panel   [what sums begin with: COLS ints][K / 4][COLS][4 bytes]
//
// A task is a panel; bytes beyond K and columns beyond N are zeros.
#define COLS $cols

$head
$parameters)
{
    const int panels = (N + COLS - 1) / COLS;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int col0 = task % panels * COLS;
        const int z = task / panels;
$batch
        __global int* to = packed + (long)task * (steps + 1) * COLS;
        int sums[COLS];
        for (int c = 0; c < COLS; ++c) sums[c] = 0;
        for (int step = 0; step < steps; ++step) {
            for (int c = 0; c < COLS; ++c) {
                const int col = col0 + c;
                int made = 0;
                for (int j = 0; j < 4; ++j) {
                    const int row = step * 4 + j;
                    const int value = row < K && col < N ? $load : 0;
                    made |= (value & 0xff) << 8 * j;
                    sums[c] += value;
                }
                to[(step + 1) * COLS + c] = made;
            }
        }
        for (int c = 0; c < COLS; ++c) to[c] = -sums[c] * added;
    }
}
