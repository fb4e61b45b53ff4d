// y[pixel][c] = epilogue(sum over taps t of share(t) * x[at(t)][c]), taps around the place that the
// grid names for the pixel: $taps along each of $axes axes, and all combinations of them.
//
// A task is PIECE pixels of a block of channels. Its taps are found first and kept: where they lie
// in x, and their shares. Every tap lies in x, whatever the grid holds: what is outside has either
// a neighbour inside for it ($padding) or a share of 0, and is not added.
#define TAPS $taps // along one axis
#define AXES $axes
#define COUNT $count // combinations
#define PIECE $piece // pixels of a task
#define LANES $lanes // channels of a vector

typedef $real real;
typedef $acc value;

// -1 .. 1 as a place among `size` elements, rounded as ONNX's reference does.
static real place_of(real g, int size)
{
    #pragma OPENCL FP_CONTRACT OFF
    return $place;
}

$reflected
// The elements of an axis around `g`, in steps of `step`, and the share of each.
static void taps_of(real g, int size, int step, int* at, value* share)
{
    real x = place_of(g, size);
$taps_of
}

$head
$parameters)
{
    for (int task = $first; task < $end; task += $stride) {
        const int pixel0 = $pixel_task * PIECE;
        const int channel0 = $channel_task * channel_block;
        const int channel1 = channel0 + channel_block < channels ? channel0 + channel_block : channels;
        const int stored = pixel0 + PIECE < pixels ? PIECE : pixels - pixel0;
$rows
        int at[COUNT * PIECE];
        value share[COUNT * PIECE];
        for (int r = 0; r < stored; ++r) {
            int flat = pixel0 + r;
$keep
        }
        int near[AXES * TAPS * PIECE];
        value part[AXES * TAPS * PIECE];
        for (int r = 0; r < stored; ++r) {
            int a[TAPS];
            value s[TAPS];
$axes_taps
        }
        #pragma unroll
        for (int t = 0; t < COUNT; ++t) {
            for (int r = 0; r < stored; ++r) {
                at[t * PIECE + r] = $at;
                share[t * PIECE + r] = $share;
            }
        }
$channels
    }
}
