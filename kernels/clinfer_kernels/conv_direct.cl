// y[pixel][g M + m] =
//     epilogue(sum over taps t, channels c of x[pixel at t][g C + c] * w[g][m][c][t])
//
// One result a work-item; neighbours have neighbouring channels. Both tensors at any strides.
$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % (groups * M);
        const int group = channel / M;
        const int filter_w = w_o + group * w_group + channel % M * w_filter;
        int flat = task / (groups * M);
        int position = flat;
$position
$locate
        $acc_type sum = 0;
        for (int tap = 0; tap < window; ++tap) {
            int rest = tap;
$taps
            const int at = $input_at + group * C * $group_step;
            const int tap_w = filter_w$tap_w;
$accumulate
        }
$epilogue
    }
}
