// y[pixel][m] = epilogue(sum over taps t, channels c of x[pixel at t][c] * w[m][t][c])
//
//                      panel of w: COLS filters   An implicit matrix product over taps, channels.
//                         +----------------+      A task is a block of pixels by a block of panels;
//      taps x channels    |  t, c          |      neighbouring tasks mostly have the same panels.
//     +----------------+  +----------------+
//     | ROWS pixels    |  +----------------+      Each tap points every pixel of the tile at its
//     +----------------+  |  ROWS x COLS   |      input pixel, or at zeros where that is padding
//             x           |  accumulators  |      (Dukhan, "The Indirect Convolution Algorithm",
//                         +----------------+      2019, done on the fly).
//
// Where no window of the tile passes the ends of the innermost axis, and its taps lie side by side
// in memory, all taps along that axis are one run. Pixels beyond the block's end repeat the last
// one and are not stored; filters beyond M are zeros in the panel.
#define ROWS $rows // pixels of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // filters of a register tile, and of a panel

typedef $vec vec;

$head
$parameters)
{
    const __global $acc_type* zeros = w + zeros_at;
    const int group_panels = (M + COLS - 1) / COLS;
$reach
    const int is_joined = tap_step$last * x_s$last == C;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int pixel0 = task % pixel_tasks * pixel_block;
        const int pixel1 = pixel0 + pixel_block < pixels ? pixel0 + pixel_block : pixels;
        const int panel0 = task / pixel_tasks * panel_block;
        const int panel1 = panel0 + panel_block < panels ? panel0 + panel_block : panels;
        int position = pixel0;
$position
        for (int pixel = pixel0; pixel < pixel1; pixel += ROWS) {
            int at[ROWS];
$starts
            int is_run = is_joined;
            int is_inside = 1;
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
$start
                if (pixel + r + 1 >= pixel1) continue;
$advance
            }
            is_inside &= is_run;
$rows_of
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                int flat = pixel + r < pixel1 ? pixel + r : pixel;
$locate
            }
            const int stored = pixel + ROWS < pixel1 ? ROWS : pixel1 - pixel;
            const int steps = is_run ? 1 : taps$last;
            const int run = is_run ? taps$last * C : C;
            for (int panel = panel0; panel < panel1; ++panel) {
                const int group = panel / group_panels;
                const int filter = panel % group_panels * COLS;
                const long depth = (long)rows * taps$last * C;
                const __global $acc_type* next_w = w + w_o + panel * depth * COLS;
                const __global $acc_type* group_x = x + x_o + $group_at;
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                for (int row = 0; row < rows; ++row) {
                    int outer = row;
$taps
                    for (int t$last = 0; t$last < steps; ++t$last) {
                        const int tap_at = $tap_at;
                        const __global $acc_type* from[ROWS];
                        #pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            from[r] = group_x + (at[r] + tap_at);
                        }
                        if (!is_inside) {
                            int is_read = 0;
                            #pragma unroll
                            for (int r = 0; r < ROWS; ++r) {
$within
                                from[r] = is_input ? from[r] : zeros;
                                is_read |= is_input;
                            }
                            if (!is_read) {
                                next_w += run * COLS;
                                continue;
                            }
                        }
$products
                    }
                }
$straight
                // The tile goes through memory, so that the epilogue's code is there once.
                vec tile[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) tile[r][v] = acc[r][v];
                }
                #pragma unroll 1
                for (int r = 0; r < stored; ++r) {
$load_rows
                    #pragma unroll 1
                    for (int v = 0; v < VECS; ++v) {
                        const int lanes = M - filter - v * LANES;
                        if (lanes <= 0) continue;
                        const int channel = group * M + filter + v * LANES;
                        const vec sum = tile[r][v];
$epilogue
                    }
                }
            }
        }
    }
}
