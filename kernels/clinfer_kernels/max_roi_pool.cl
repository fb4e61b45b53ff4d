// Work-item g makes elements g, g + G, ... of the output (G: all work-items): the greatest pixel of
// one bin of one region in one channel, 0 of a bin without pixels, NaN where one is NaN.

// Nearest pixel, halves away from 0; far beyond any image where there is none so far out, or NaN.
static long pixel_of(float corner) {
    return (long)fmin(fmax(round(corner * $scale), -1073741824.0f), 1073741824.0f);
}

typedef struct { int begin, end; } range;

// The pixels of bin `bin` of an axis: from the floor of its first edge to the ceiling of its last.
static range range_of(long first, long last, int bins, int bin, int size) {
    const float length = (float)max(last - first + 1, 1L);
    // length / bins to nearest, which a device's own division may miss: edges are often whole.
    const float inverse = 1.0f / bins;
    const float guess = length * inverse;
    const float step = fma(fma(-guess, (float)bins, length), inverse, guess);
    const long begin = first + (long)floor(bin * step);
    const long end = first + (long)ceil((bin + 1) * step);
    const range found = {(int)clamp(begin, 0L, (long)size), (int)clamp(end, 0L, (long)size)};
    return found;
}

$head
$parameters)
{
    const int total = regions * channels * rows * columns;
    for (int flat = get_global_id(0); flat < total; flat += get_global_size(0)) {
        const int column = flat % columns;
        const int row = flat / columns % rows;
        const int channel = flat / columns / rows % channels;
        const int region = flat / columns / rows / channels;
        const float number = $number;
        const int image = $place;
        $value result = 0;
        if (image >= 0) {
            const int x_at = (image * channels + channel) * height * width;
            const long x0 = pixel_of($x0), y0 = pixel_of($y0);
            const long x1 = pixel_of($x1), y1 = pixel_of($y1);
            const range down = range_of(y0, y1, rows, row, height);
            const range across = range_of(x0, x1, columns, column, width);
            if (down.begin < down.end && across.begin < across.end) result = -INFINITY;
            for (int i = down.begin; i < down.end; ++i) {
                for (int j = across.begin; j < across.end; ++j) {
                    const $value pixel = $pixel;
                    if (pixel > result || pixel != pixel) result = pixel;
                }
            }
        }
        $store
    }
}
