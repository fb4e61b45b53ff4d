// Work-item g makes tasks g, g + G, ... (G: all work-items): one bin of one region in CHANNELS
// channels. Samples outside the image by more than a pixel are left out, and not walked.
#define CHANNELS $channels

typedef $real real;

// Samples start + (i + 1/2) * step / count, i from 0 to count - 1, of bin `bin` along an axis.
typedef struct { real start, step; long count, begin, end; } samples;

static samples samples_of(real first, real last, int bins, int bin, int size) {
    samples s;
    const real origin = first - $shift;
    const real length = $length;
    s.step = length / bins;
    s.count = $count;
    s.start = origin + bin * s.step;
    s.begin = 0;
    s.end = s.count > 0 ? s.count : 0;
    if (s.step > 0 && s.end > 0) {
        const real most = (real)s.end;
        const real low = floor((-1 - s.start) / s.step * s.count) - 1;
        const real high = ceil((size - s.start) / s.step * s.count) + 1;
        s.begin = (long)clamp(low, (real)0, most);
        s.end = (long)clamp(high, (real)0, most);
    }
    return s;
}

// The pixels around sample i and the share of the upper one; false where it is outside.
static bool sample_at(samples s, long i, int size, int* low, int* high, real* share) {
    const real place = s.start + (i + (real)0.5) * (s.step / (s.count ? s.count : 1));
    if (!(place >= -1 && place <= size)) return false;
    const real at = clamp(place, (real)0, (real)(size - 1));
    *low = (int)at;
    *high = min(*low + 1, size - 1);
    *share = at - *low;
    return true;
}

$head
$parameters)
{
    const int blocks = (channels + CHANNELS - 1) / CHANNELS;
    const int total = regions * blocks * rows * columns;
    const int area = height * width;
    for (int task = get_global_id(0); task < total; task += get_global_size(0)) {
        const int column = task % columns;
        const int row = task / columns % rows;
        const int channel = task / columns / rows % blocks * CHANNELS;
        const int region = task / columns / rows / blocks;
        const int kept = min(CHANNELS, channels - channel);
        const int image = $place;
        const bool is_inside = image >= 0 && area > 0;
        real sum[CHANNELS], greatest[CHANNELS];
        #pragma unroll
        for (int k = 0; k < CHANNELS; ++k) sum[k] = 0, greatest[k] = -INFINITY;
        long lines = 0, places = 0, count = 1;
        if (is_inside) {
            const real x0 = $x0 * $scale, y0 = $y0 * $scale, x1 = $x1 * $scale, y1 = $y1 * $scale;
            const samples down = samples_of(y0, y1, rows, row, height);
            const samples across = samples_of(x0, x1, columns, column, width);
            for (long j = across.begin; j < across.end; ++j) {
                int low, high;
                real share;
                places += sample_at(across, j, width, &low, &high, &share);
            }
            for (long i = down.begin; i < down.end; ++i) {
                int top, bottom;
                real below;
                if (!sample_at(down, i, height, &top, &bottom, &below)) continue;
                ++lines;
                for (long j = across.begin; j < across.end; ++j) {
                    int left, right;
                    real beside;
                    if (!sample_at(across, j, width, &left, &right, &beside)) continue;
                    const real above_left = (1 - below) * (1 - beside);
                    const real above_right = (1 - below) * beside;
                    const real below_left = below * (1 - beside);
                    const real below_right = below * beside;
                    #pragma unroll
                    for (int k = 0; k < CHANNELS; ++k) {
                        const int x_at = (image * channels + channel + min(k, kept - 1)) * area;
                        const real a = $a * above_left;
                        const real b = $b * above_right;
                        const real c = $c * below_left;
                        const real d = $d * below_right;
                        sum[k] += a + b + c + d;
                        greatest[k] = fmax(greatest[k], fmax(fmax(a, b), fmax(c, d)));
                    }
                }
            }
            count = max(down.count, 1L) * max(across.count, 1L);
            if (lines < down.count || places < across.count) {
                #pragma unroll
                for (int k = 0; k < CHANNELS; ++k) greatest[k] = fmax(greatest[k], (real)0);
            }
        }
        for (int k = 0; k < kept; ++k) {
            const int flat = ((region * channels + channel + k) * rows + row) * columns + column;
            const real result = is_inside ? $result : 0;
            $store
        }
    }
}
