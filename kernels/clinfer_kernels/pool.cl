// y[pixel][c] = epilogue($kind over the taps t of x[pixel at t][c]), padding left out
//
//     index    -2 -1 | 0  1  2  3  4  5  6 | 7     A window's taps in the input are a range along
//     window       *   *     *                     the innermost axis, begin to end; along the
//              first   begin   end                 other axes those in the padding are skipped$far.
//
// A task is one pixel by a block of channels. Windows are walked $walked.
$contract
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
$taps
$after
$finish
        }
    }
}
