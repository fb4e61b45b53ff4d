// y[pixel][c] = epilogue(sum over taps t of x[pixel at t][c] * w[t][c]): each channel by itself.
//
//     input columns   |  |  |  |  |  |  |  |      A tile is PIXELS outputs side by side, LANES
//                     \________/                  channels. Per row of the window each of the
//                        \________/               COLUMNS inputs is read once and added to all
//     outputs          0  1  2 ...   (STEP 1)     outputs whose windows it is in.
//
// A tap's weights are loaded where the first output of the tile needs them: of wide windows no more
// taps than outputs are in registers at a time.
//
// A task is a row of outputs by a block of channels. Bit j of `columns` says whether column j lies
// in the input. Channels beyond the last whole vector are done one by one.
#define PIXELS $pixels // outputs of a tile along the innermost axis
#define LANES $lanes // channels of a vector
#define WIDTH $width // taps along the innermost axis,
#define STEP $step // its stride
#define TAP_STEP $tap_step // and its dilation
#define REACH ((WIDTH - 1) * TAP_STEP) // from the first tap to the last
#define LOW (REACH < 0 ? REACH : 0) // the first column, counted from the first tap
#define COLUMNS ((PIXELS - 1) * STEP + (REACH < 0 ? -REACH : REACH) + 1)

typedef $vec vec;

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel0 = task % channel_tasks * channel_block;
        const int channel1 = channel0 + channel_block < C ? channel0 + channel_block : C;
        const int whole = channel0 + (channel1 - channel0) / LANES * LANES;
        const int line = task / channel_tasks;
        int position = line;
$position
        for (int o = 0; o < out$last; o += PIXELS) {
            const int first = o * step$last + origin$last + LOW;
            long columns = 0;
            #pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                columns |= (long)((uint)(first + j) < (uint)size$last) << j;
            }
            const int stored = o + PIXELS < out$last ? PIXELS : out$last - o;
$rows
            #pragma unroll
            for (int r = 0; r < PIXELS; ++r) {
                int flat = line * out$last + (r < stored ? o + r : o);
$locate
            }
            for (int channel = channel0; channel < whole; channel += LANES) {
                vec acc[PIXELS];
                #pragma unroll
                for (int r = 0; r < PIXELS; ++r) acc[r] = 0;
                for (int row = 0; row < rows; ++row) {
                    int outer = row;
$taps
                    const __global $acc_type* tap_w = w + w_o + row * WIDTH * C + channel;
                    vec y[WIDTH];
                    const int line_at = $line_at;
                    int at = line_at + first * x_s$last + channel;
                    #pragma unroll
                    for (int j = 0; j < COLUMNS; ++j) {
                        const int t = (j + LOW) / TAP_STEP;
                        if ((j + LOW) % TAP_STEP == 0 && t >= 0 && t < WIDTH) y[t] = $load_w;
                        if (columns & 1L << j) {
                            const vec value = $load_x;
                            #pragma unroll
                            for (int r = 0; r < PIXELS; ++r) {
                                const int from = j + LOW - r * STEP;
                                const int t = from / TAP_STEP;
                                if (from % TAP_STEP == 0 && t >= 0 && t < WIDTH) {
                                    acc[r] += value * y[t];
                                }
                            }
                        }
                        at += x_s$last;
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
            for (int r = 0; r < stored; ++r) {
$load_rows_one
                for (int channel = whole; channel < channel1; ++channel) {
                    $acc_type sum = 0;
                    for (int row = 0; row < rows; ++row) {
                        int outer = row;
$taps_one
                        const int line_at = $line_at;
                        for (int t = 0; t < WIDTH; ++t) {
                            const int column = (o + r) * step$last + origin$last + t * TAP_STEP;
                            if ((uint)column >= (uint)size$last) continue;
                            const int at = line_at + column * x_s$last + channel;
                            sum += x[at] * w[w_o + (row * WIDTH + t) * C + channel];
                        }
                    }
$epilogue_one
                }
            }
        }
    }
}
