// v[point][tile][c] = B' x B: the inputs of a tile of OUT x OUT outputs at its SIDE x SIDE points.
//
// The first of three launches (conv_winograd.cl has the method). A work-item has a tile of a
// channel, its neighbours the next channels: they read and write beside each other. `inside1` and
// `inside2` have a bit for each row and column of x that is not padding.
#define OUT $out // outputs of a tile along an axis
#define SIDE (OUT + 2) // inputs of a tile along an axis

$head
$parameters)
{
    const int each = tasks; // values of a point
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % C;
        const int tile = task / C;
        const int first2 = tile % tiles2 * OUT + origin2;
        const int first1 = tile / tiles2 % tiles1 * OUT + origin1;
        const int image = tile / tiles2 / tiles1;
        const int at = x_o + image * x_s0 + first1 * x_s1 + first2 * x_s2 + channel;
        const __global float* from = x + at;
        __global float* to = v + task;
        int inside1 = 0;
        int inside2 = 0;
        #pragma unroll
        for (int i = 0; i < SIDE; ++i) {
            inside1 |= ((uint)(first1 + i) < (uint)size1) << i;
            inside2 |= ((uint)(first2 + i) < (uint)size2) << i;
        }
$body
    }
}
