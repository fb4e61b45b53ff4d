// y[pixel][m] = epilogue(sum over taps t, channels c of (x[pixel at t][c] - zero) * w[m][t][c])
//
// By matrix registers (Intel AMX), as in matmul_amx: 32 pixels x 32 filters of int32. What the windows
// of a tile's pixels read is staged as a row of bytes for each pixel, taps one after the other, with
// zeros behind up to whole registers; all panels of filters then multiply the same bytes. Where the
// window is one tap, and its pixels lie side by side, they are read where they are.
//
//     panel   [what sums begin with: COLS ints][taps x channels, 4 bytes each step][COLS]
//
// Padding is zero points, which are taken off with all others where sums begin.
#define ROWS 32 // pixels of a tile
#define VECS 2 // vectors side by side in it
#define LANES 16 // sums a vector holds
#define COLS 32 // filters of a tile, and of a panel
#define DEEP 64 // bytes of a register along taps and channels
#define AHEAD (2 * DEEP * COLS) // bytes of w from those that are multiplied to those asked for

typedef int16 vec;

// n bytes; the last whole vector of them ends with the last byte.
static void copy_row(const __global char* from, __local char* to, const int n) {
    int k = 0;
    if (n >= 64) {
        for (; k + 64 <= n; k += 64) bytes64_copy(from + k, to + k);
        if (k < n) bytes64_copy(from + n - 64, to + n - 64);
    } else if (n >= 8) {
        for (; k + 8 <= n; k += 8) bytes8_copy(from + k, to + k);
        if (k < n) bytes8_copy(from + n - 8, to + n - 8);
    } else {
        for (; k < n; ++k) to[k] = from[k];
    }
}

static void fill_row(const int value, __local char* to, const int n) {
    for (int k = 0; k < n; ++k) to[k] = (char)value;
}

$head
$parameters)
{
    const int depth = (rows * taps$last * C + DEEP - 1) / DEEP * DEEP;
    uchar setup[64] __attribute__((aligned(64)));
    for (int i = 0; i < 64; ++i) setup[i] = i == 0 ? 1 : i >= 48 && i < 56 ? 16 : 0;
    for (int i = 16; i < 32; i += 2) setup[i] = DEEP;
    __asm__ volatile("ldtilecfg (%0)" : : "r"(setup) : "memory");
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
            int is_inside = 1;
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
$start
                if (pixel + r + 1 >= pixel1) continue;
$advance
            }
$rows_of
            #pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                int flat = pixel + r < pixel1 ? pixel + r : pixel;
$locate
            }
            const int stored = pixel + ROWS < pixel1 ? ROWS : pixel1 - pixel;
            int is_straight = rows * taps$last == 1 && is_inside && C == depth && stored == ROWS;
            for (int r = 1; r < ROWS; ++r) is_straight &= at[r] - at[r - 1] == x_s$last;
            int group_staged = -1;
            for (int panel = panel0; panel < panel1; ++panel) {
                const int group = panel / group_panels;
                const int filter = panel % group_panels * COLS;
                const __global int* next_w = w + panel * (long)(depth / 4 + 1) * COLS;
                const __global char* group_x = (const __global char*)x + x_o + group * C;
                if (!is_straight && group != group_staged) {
                    group_staged = group;
                    #pragma unroll 1
                    for (int r = 0; r < stored; ++r) {
                        __local char* to = staged + r * depth;
                        const int is_run = is_joined & ((uint)first$last[r] < (uint)size$last)
                            & ((uint)(first$last[r] + reach$last) < (uint)size$last);
                        for (int row = 0; row < rows; ++row) {
                            int outer = row;
                            int is_input = 1;
$taps
$within
                            const __global char* from = group_x + (at[r] + $tap_at);
                            if (is_input & is_run) {
                                copy_row(from, to, taps$last * C);
                                to += taps$last * C;
                                continue;
                            }
                            for (int t = 0; t < taps$last; ++t) {
                                const int j = first$last[r] + t * tap_step$last;
                                if (is_input & ((uint)j < (uint)size$last)) {
                                    copy_row(from + t * tap_step$last * x_s$last, to, C);
                                } else {
                                    fill_row(zero, to, C);
                                }
                                to += C;
                            }
                        }
                        fill_row(0, to, (int)(staged + (r + 1) * depth - to));
                    }
                }
                ulong next_x = is_straight ? (ulong)(group_x + at[0]) : (ulong)staged;
                const long x_step = is_straight ? x_s$last : depth;
                vec acc[ROWS][VECS] __attribute__((aligned(64)));
                __asm__ volatile(
                    "tileloadd (%0,%2,1), %%tmm0\n\t"
                    "tileloadd (%1,%2,1), %%tmm1\n\t"
                    "tileloadd (%0,%2,1), %%tmm2\n\t"
                    "tileloadd (%1,%2,1), %%tmm3"
                    : : "r"(next_w), "r"(next_w + LANES), "r"(0L) : "memory");
                next_w += COLS;
                for (int k = 0; k < depth; k += DEEP) {
                    #pragma unroll
                    for (int i = 0; i < DEEP * COLS; i += 64) {
                        const __global char* ahead = (const __global char*)next_w + AHEAD + i;
                        __asm__ volatile("prefetcht0 %0" : : "m"(*ahead));
                    }
                    __asm__ volatile(
                        "tileloadd (%0,%4,1), %%tmm4\n\t"
                        "tileloadd (%2,%5,1), %%tmm6\n\t"
                        "$dot %%tmm6, %%tmm4, %%tmm0\n\t"
                        "tileloadd (%3,%5,1), %%tmm7\n\t"
                        "$dot %%tmm7, %%tmm4, %%tmm1\n\t"
                        "tileloadd (%1,%4,1), %%tmm5\n\t"
                        "$dot %%tmm6, %%tmm5, %%tmm2\n\t"
                        "$dot %%tmm7, %%tmm5, %%tmm3"
                        : : "r"(next_x), "r"(next_x + 16 * x_step), "r"(next_w),
                        "r"(next_w + LANES), "r"(x_step), "r"(4L * COLS) : "memory");
                    next_x += DEEP;
                    next_w += DEEP / 4 * COLS;
                }
                __asm__ volatile(
                    "tilestored %%tmm0, (%0,%4,1)\n\t"
                    "tilestored %%tmm1, (%1,%4,1)\n\t"
                    "tilestored %%tmm2, (%2,%4,1)\n\t"
                    "tilestored %%tmm3, (%3,%4,1)"
                    : : "r"(&acc[0][0]), "r"(&acc[0][1]), "r"(&acc[16][0]), "r"(&acc[16][1]),
                    "r"(64L * VECS) : "memory");
$straight
                #pragma unroll 1
                for (int r = 0; r < stored; ++r) {
$load_rows
                    #pragma unroll 1
                    for (int v = 0; v < VECS; ++v) {
                        const int lanes = M - filter - v * LANES;
                        if (lanes <= 0) continue;
                        const int channel = group * M + filter + v * LANES;
                        const vec sum = acc[r][v];
$epilogue
                    }
                }
            }
        }
    }
    __asm__ volatile("tilerelease");
}
