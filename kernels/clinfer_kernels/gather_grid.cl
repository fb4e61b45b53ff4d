// Work-item g gathers elements g, g + G, g + 2 G, ... of the flat index (G: all work-items).
//
//     y[i0, i1, ..., i] = x0[x0_at(i0, i1, ..., i) + sum over c of index_c * a_c]
//
// with index_c the place along its axis (size d_c, stride a_c in x0) of component c of the index
// tuple in x1; 0 for a place that is not there, which is reported.
$head
$parameters)
{
$empty
    const int total = $total;
    for (int flat = get_global_id(0); flat < total; flat += get_global_size(0)) {
        int row = flat;
$indices
$bases
$body
    }
}
