// Copies B into panels of COLS columns, which matmul_cpu reads front to back:
//
//     packed[z][panel][k][c] = x[z][k, panel * COLS + c]      zero for columns beyond N
//
//      x    0    COLS   2 COLS  N               packed
//      k0   +------+------+---+                 panel 0: COLS values of row 0, of row 1, ...
//           | p=0  | p=1  |p=2|                 panel 1: ...
//      k1   +------+------+---+                 panel 2: ... rows filled up with zeros
//
// A task is K_BLOCK rows of one panel.
#define LANES $lanes // values a vector holds
#define COLS $cols // columns of a panel, a multiple of LANES
#define K_BLOCK $block // rows a task copies

$head
$parameters)
{
    const int blocks = (K + K_BLOCK - 1) / K_BLOCK;
    const int panels = (N + COLS - 1) / COLS;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int k0 = task % blocks * K_BLOCK;
        const int k1 = k0 + K_BLOCK < K ? k0 + K_BLOCK : K;
        const int panel = task / blocks % panels;
        const int z = task / blocks / panels;
$batch
        for (int row = k0; row < k1; ++row) {
            const long to = ((long)(z * panels + panel) * K + row) * COLS;
            for (int c = 0; c < COLS; c += LANES) {
                const int col = panel * COLS + c;
                const int lanes = N - col;
                const long at = $at;
                $vec value = 0;
                if (lanes >= LANES) {
                    value = $load;
                } else if (lanes > 0) {
                    value = $load_part;
                }
                $store
            }
        }
    }
}
