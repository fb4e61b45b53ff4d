// out = end(A' m A): the results of a tile from its sums m[point][tile][filter] at all points.
//
// The last of three launches (conv_winograd.cl has the method). A work-item has a tile of a filter,
// its neighbours the next filters: they read and write beside each other. Results of a tile beyond
// the end of an axis are not stored.
#define OUT $out // results of a tile along an axis

$head
$parameters)
{
    const int each = tasks; // sums of a point
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % C;
        const int tile = task / C;
        const int first2 = tile % tiles2 * OUT;
        const int first1 = tile / tiles2 % tiles1 * OUT;
        const int pixel = (tile / tiles2 / tiles1 * out1 + first1) * out2 + first2;
        const __global float* from = m + task;
$body
    }
}
