typedef float8 float8_unaligned __attribute__((aligned(4)));
static float8 load_float32x8(const __global float* p) {
    return *(const __global float8_unaligned*)p;
}
static void will_read_later_line(const __global void* p) { __builtin_prefetch((const void*)(ulong)p, 0, 2); }
static void store_float32x8(float8 v, __global float* p) {
    *(__global float8_unaligned*)p = v;
}
static float8 load_part_float32x8(const __global float* p, int s, int n) {
    float lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int j = 0; j < n; ++j) lanes[j] = p[j * s];
    return (float8)(lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6], lanes[7]);
}
static void store_part_float32x8(float8 v, __global float* p, int s, int n) {
    const float lanes[8] = {v.s0, v.s1, v.s2, v.s3, v.s4, v.s5, v.s6, v.s7};
    for (int j = 0; j < n; ++j) p[j * s] = lanes[j];
}
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
#define ROWS 6 // pixels of a register tile
#define VECS 2 // vectors side by side in it
#define LANES 8 // values a vector holds
#define COLS (VECS * LANES) // filters of a register tile, and of a panel

typedef float8 vec;

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv_6x16_r3(
        __global const float* restrict x,
        __global const float* restrict w,
        __global float* restrict y0,
        __global const float* restrict e0,
        const int y0_o,
        const int y0_s0,
        const int e0_o,
        const int e0_s0,
        const int x_o,
        const int x_s0,
        const int x_s1,
        const int out1,
        const int size1,
        const int taps1,
        const int step1,
        const int tap_step1,
        const int origin1,
        const int x_s2,
        const int out2,
        const int size2,
        const int taps2,
        const int step2,
        const int tap_step2,
        const int origin2,
        const int rows,
        const int C,
        const int M,
        const int w_o,
        const int zeros_at,
        const int pixels,
        const int panels,
        const int pixel_block,
        const int panel_block,
        const int pixel_tasks,
        const int tasks)
{
    const __global float* zeros = w + zeros_at;
    const int group_panels = (M + COLS - 1) / COLS;
    const int reach1 = (taps1 - 1) * tap_step1;
    const int reach2 = (taps2 - 1) * tap_step2;
    const int is_joined = tap_step2 * x_s2 == C;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int pixel0 = task % pixel_tasks * pixel_block;
        const int pixel1 = pixel0 + pixel_block < pixels ? pixel0 + pixel_block : pixels;
        const int panel0 = task / pixel_tasks * panel_block;
        const int panel1 = panel0 + panel_block < panels ? panel0 + panel_block : panels;
        int position = pixel0;
        int o0, o1, o2;
        o2 = position % out2;
        position /= out2;
        o1 = position % out1;
        position /= out1;
        o0 = position;
        for (int pixel = pixel0; pixel < pixel1; pixel += ROWS) {
            int at[ROWS];
            int first1[ROWS];
            int first2[ROWS];
            int is_run = is_joined;
            int is_inside = 1;
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                at[r] = o0 * x_s0;
                first1[r] = o1 * step1 + origin1;
                at[r] += first1[r] * x_s1;
                is_inside &= (uint)first1[r] < (uint)size1;
                is_inside &= (uint)(first1[r] + reach1) < (uint)size1;
                first2[r] = o2 * step2 + origin2;
                at[r] += first2[r] * x_s2;
                is_run &= (uint)first2[r] < (uint)size2;
                is_run &= (uint)(first2[r] + reach2) < (uint)size2;
                if (pixel + r + 1 >= pixel1) continue;
                ++o2;
                if (o2 == out2) {
                    o2 = 0;
                    ++o1;
                }
                if (o1 == out1) {
                    o1 = 0;
                    ++o0;
                }
            }
            is_inside &= is_run;
            int y0_rows[ROWS];
            int e0_rows[ROWS];
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                int flat = pixel + r < pixel1 ? pixel + r : pixel;
                int i0;
                i0 = flat;
                const int y0_at = y0_o + i0 * y0_s0;
                const int e0_at = e0_o + i0 * e0_s0;
                y0_rows[r] = y0_at;
                e0_rows[r] = e0_at;
            }
            const int stored = pixel + ROWS < pixel1 ? ROWS : pixel1 - pixel;
            const int steps = is_run ? 1 : taps2;
            const int run = is_run ? taps2 * C : C;
            for (int panel = panel0; panel < panel1; ++panel) {
                const int group = panel / group_panels;
                const int filter = panel % group_panels * COLS;
                const long depth = (long)rows * taps2 * C;
                const __global float* next_w = w + w_o + panel * depth * COLS;
                const __global float* group_x = x + x_o + group * C;
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) acc[r][v] = 0;
                }
                for (int row = 0; row < rows; ++row) {
                    int outer = row;
                    int t1;
                    t1 = outer;
                    for (int t2 = 0; t2 < steps; ++t2) {
                        const int tap_at = t1 * tap_step1 * x_s1 + t2 * tap_step2 * x_s2;
                        const __global float* from[ROWS];
                        #pragma unroll
                        for (int r = 0; r < ROWS; ++r) {
                            from[r] = group_x + (at[r] + tap_at);
                        }
                        if (!is_inside) {
                            int is_read = 0;
                            #pragma unroll
                            for (int r = 0; r < ROWS; ++r) {
                                int is_input = 1;
                                is_input &= (uint)(first1[r] + t1 * tap_step1) < (uint)size1;
                                is_input &= is_run | ((uint)(first2[r] + t2 * tap_step2) < (uint)size2);
                                from[r] = is_input ? from[r] : zeros;
                                is_read |= is_input;
                            }
                            if (!is_read) {
                                next_w += run * COLS;
                                continue;
                            }
                        }
                        for (int k = 0; k < run; ++k) {
                            vec y[VECS];
                            #pragma unroll
                            for (int v = 0; v < VECS; ++v) {
                                y[v] = load_float32x8(next_w + v * LANES);
                                will_read_later_line(next_w + (64 * VECS + v) * LANES);
                            }
                            #pragma unroll
                            for (int r = 0; r < ROWS; ++r) {
                                #pragma unroll
                                for (int v = 0; v < VECS; ++v) acc[r][v] += from[r][k] * y[v];
                            }
                            next_w += COLS;
                        }
                    }
                }
                if (M - filter >= COLS && stored == ROWS) {
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const int y0_at = y0_rows[r];
                        const int e0_at = e0_rows[r];
                        #pragma unroll
                        for (int v = 0; v < VECS; ++v) {
                            const int channel = group * M + filter + v * LANES;
                            const vec sum = acc[r][v];
                            const float8 v_e0 = load_float32x8(e0 + e0_at + channel);
                            const float8 z0 = sum + v_e0;
                            const float8 z1 = 0.0f;
                            const float8 z2 = z1 > z0 ? z1 : z0;
                            store_float32x8(z2, y0 + y0_at + channel);
                        }
                    }
                    continue;
                }
                // The tile goes through memory, so that the epilogue's code is there once.
                vec tile[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) tile[r][v] = acc[r][v];
                }
                #pragma unroll 1
                for (int r = 0; r < stored; ++r) {
                    const int y0_at = y0_rows[r];
                    const int e0_at = e0_rows[r];
                    #pragma unroll 1
                    for (int v = 0; v < VECS; ++v) {
                        const int lanes = M - filter - v * LANES;
                        if (lanes <= 0) continue;
                        const int channel = group * M + filter + v * LANES;
                        const vec sum = tile[r][v];
                        const float8 v_e0 = lanes >= 8
                            ? load_float32x8(e0 + e0_at + channel)
                            : load_part_float32x8(e0 + e0_at + channel, 1, lanes);
                        const float8 z0 = sum + v_e0;
                        const float8 z1 = 0.0f;
                        const float8 z2 = z1 > z0 ? z1 : z0;
                        if (lanes >= 8) {
                            store_float32x8(z2, y0 + y0_at + channel);
                        } else {
                            store_part_float32x8(z2, y0 + y0_at + channel, 1, lanes);
                        }
                    }
                }
            }
        }
    }
}
