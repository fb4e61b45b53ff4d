// Work-item g computes elements, or vectors, g, g + G, g + 2 G, ... of the flat index (G: all
// work-items), so that neighbours touch neighbouring ones along the innermost dimension.
$head
$parameters)
{
    const int total = $total;
    for (int flat = get_global_id(0); flat < total; flat += get_global_size(0)) {
        int row = flat;
$indices
$bases
$scalar
    }
}
