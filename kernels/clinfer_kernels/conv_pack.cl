// Copies weights into panels of COLS filters, which the convolution reads front to back:
//
//     packed[begin + (((g * panels + p) * window + tap) * C + c) * COLS + m]
//         = w[group g, filter p * COLS + m, channel c, tap]        zero for filters beyond M
//
// and writes zeros behind the last panel. A task is one tap of one panel.
#define COLS $cols // filters of a panel

$head
$parameters)
{
    const int panels = (M + COLS - 1) / COLS;
    const long end = begin + (long)tasks * C * COLS;
    for (int i = get_global_id(0); i < zeros; i += get_global_size(0)) packed[end + i] = 0;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int tap = task % window;
        const int panel = task / window % panels;
        const int group = task / window / panels;
        const long to = begin + (long)task * C * COLS;
        for (int m = 0; m < COLS; ++m) {
            const int filter = panel * COLS + m;
            const int at = w_o + group * w_group + filter * w_filter + $tap_at;
            for (int c = 0; c < C; ++c) {
                packed[to + c * COLS + m] = filter < M ? $load : 0;
            }
        }
    }
}
