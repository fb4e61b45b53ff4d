// y[pixel][c] = epilogue(sum over taps t of (x[pixel at t][c] - zero) * w[t][c]), of 8-bit integers.
//
//     rows of the window   a |  |  |  |  |      As depthwise_cpu, with the bytes of DEEP rows of the
//                          b |  |  |  |  |      window in one int: lane c of a column is the bytes
//                          c |  |  |  |  |      abc of channel c, and one instruction adds a column's
//                                               products to a result.
//
//     w   [what sums begin with][rows / DEEP][WIDTH][C][4 bytes], and zero points behind
//
// Padding is zero points: what these add is taken off where sums begin. A task is a row of outputs by
// a block of channels; the last vector of channels ends with the last channel, and computes again
// what it shares with the one before.
#define PIXELS $pixels // outputs of a tile along the innermost axis
#define LANES $lanes // channels of a vector
#define DEEP $deep // rows of the window in an int
#define WIDTH $width // taps along the innermost axis,
#define STEP $step // its stride
#define TAP_STEP $tap_step // and its dilation
#define REACH ((WIDTH - 1) * TAP_STEP) // from the first tap to the last
#define COLUMNS ((PIXELS - 1) * STEP + REACH + 1)
#define FLIP $flip // turns bytes of x into unsigned ones

typedef int$lanes vec;

$head
$parameters)
{
    const __global uchar* zeros = (const __global uchar*)(w + zeros_at);
    const vec padding = zero_bytes;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel0 = task % channel_tasks * channel_block;
        const int channel1 = channel0 + channel_block < C ? channel0 + channel_block : C;
        const int line = task / channel_tasks;
        int position = line;
$position
        for (int o = 0; o < out$last; o += PIXELS) {
            const int first = o * step$last + origin$last;
            int columns = 0;
            #pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                columns |= ((uint)(first + j) < (uint)size$last) << j;
            }
            const int stored = o + PIXELS < out$last ? PIXELS : out$last - o;
$rows
            #pragma unroll
            for (int r = 0; r < PIXELS; ++r) {
                int flat = line * out$last + (r < stored ? o + r : o);
$locate
            }
            for (int block0 = channel0; block0 < channel1; block0 += LANES) {
                const int channel = block0 + LANES <= C ? block0 : C - LANES;
                const __global int* next_w = w + channel;
                vec acc[PIXELS];
                #pragma unroll
                for (int r = 0; r < PIXELS; ++r) acc[r] = $load_begin;
                next_w += C;
                for (int row0 = 0; row0 < rows; row0 += DEEP) {
                    const __global uchar* from[DEEP];
                    int steps[DEEP];
                    #pragma unroll
                    for (int d = 0; d < DEEP; ++d) {
                        int outer = row0 + d;
                        int is_input = outer < rows;
$taps
                        const int line_at = $line_at;
                        from[d] = (const __global uchar*)x + (line_at + first * x_s$last + channel);
                        from[d] = is_input ? from[d] : zeros;
                        steps[d] = is_input ? x_s$last : 0;
                    }
                    vec y[WIDTH];
                    #pragma unroll
                    for (int t = 0; t < WIDTH; ++t) y[t] = $load_w;
                    next_w += WIDTH * C;
                    #pragma unroll
                    for (int j = 0; j < COLUMNS; ++j) {
                        vec value = padding;
                        if (columns & 1 << j) {
$column
                        }
                        value ^= (int)FLIP;
                        #pragma unroll
                        for (int r = 0; r < PIXELS; ++r) {
                            const int from_tap = j - r * STEP;
                            const int t = from_tap / TAP_STEP;
                            if (from_tap % TAP_STEP == 0 && from_tap >= 0 && t < WIDTH) {
                                acc[r] = dots4_$lanes(acc[r], value, y[t]);
                            }
                        }
                    }
                }
                #pragma unroll $unroll
                for (int r = 0; r < PIXELS; ++r) {
                    if (r >= stored) continue;
$load_rows
                    const vec sum = acc[r];
$epilogue
                }
            }
        }
    }
}
