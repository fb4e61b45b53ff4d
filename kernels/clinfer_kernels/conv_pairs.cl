// y[pixel][m] = epilogue(sum over taps t, channels c of x[pixel at t][c] * w[m][t][c])
//
//                      panel of w: COLS filters   As in conv_cpu, of bfloat16: a step takes two
//                         +----------------+      neighbouring channels at once, an int of a pixel,
//      taps x channels    | t, c, two each |      the same for all lanes, with two numbers of each
//     +----------------+  +----------------+      filter. A group's channels are even in number.
//     | ROWS pixels    |  |  ROWS x COLS   |
//     +----------------+  |  accumulators  |
//             x           +----------------+
#define ROWS $rows // pixels of a register tile
#define VECS $vecs // vectors side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // filters of a register tile, and of a panel

typedef float$lanes vec;
typedef int$lanes pairs;

$head
$parameters)
{
    const __global ushort* zeros = (const __global ushort*)(w + zeros_at);
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
                const long depth = (long)rows * taps$last * (C / 2);
                const __global int* next_w = w + panel * depth * COLS;
                const __global ushort* group_x = x + x_o + group * C;
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
                        const __global ushort* from[ROWS];
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
                                next_w += (run + 1) / 2 * COLS;
                                continue;
                            }
                        }
                        for (int k = 0; k < run; k += 2) {
                            pairs y[VECS];
                            #pragma unroll
                            for (int v = 0; v < VECS; ++v) {
                                y[v] = $load_w;
                            }
                            #pragma unroll
                            for (int r = 0; r < ROWS; ++r) {
                                const int two = bytes4_all((const __global uchar*)(from[r] + k));
                                #pragma unroll
                                for (int v = 0; v < VECS; ++v) {
                                    acc[r][v] = dot2_$lanes(acc[r][v], two, y[v]);
                                }
                            }
                            next_w += COLS;
                        }
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
