// Work-item g makes elements g, g + G, g + 2 G, ... of the output (G: all work-items).
$head
$parameters)
{
    const int total = $total;
    for (int flat = get_global_id(0); flat < total; flat += get_global_size(0)) {
        int row = flat;
$indices
$starts
$element
    }
}
