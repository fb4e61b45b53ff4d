// y[pixel][c] = epilogue($kind over the taps t of x[pixel at t][c]), padding left out
//
//     index    -2 -1 | 0  1  2  3  4  5  6 | 7     A window's taps in the input are a range along
//     window       *   *     *                     the innermost axis, begin to end; along the
//              first   begin   end                 other axes those in the padding are skipped$far.
//
// A task is one pixel by a block of channels.
#define LANES $lanes // channels of a vector

$head
$parameters)
{
    for (int task = $first; task < $end; task += $stride) {
        const int channel0 = task % channel_tasks * channel_block;
        const int channel1 = channel0 + channel_block < C ? channel0 + channel_block : C;
        const int pixel = task / channel_tasks;
        int position = pixel;
$position
        int flat = pixel;
$locate
$range
$count
        for (int channel = channel0; channel < channel1; channel += LANES) {
            const int left = channel1 - channel;
            $acc_vec acc = $identity;
$before
            for (int row = 0; row < rows; ++row) {
                int outer = row;
$taps
                const int line_at = $line_at;
                for (int t = begin; t < end; ++t) {
                    const int at = line_at + $tap_at * x_s$last;
                    const $x_vec value = $load;
$step
                }
            }
$after
$finish
        }
    }
}
