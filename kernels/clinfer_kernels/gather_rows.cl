// One work-item a work-group. Rows of the output are taken one after another; indices that do not
// change along a row are read once, and the row is copied as vectors.
//
//     y[i0, i1, ..., i] = x0[x0_at(i0, i1, ..., i) + sum over c of index_c * a_c]
//
// with index_c the place along its axis (size d_c, stride a_c in x0) of component c of the index
// tuple in x1; 0 for a place that is not there, which is reported.
$head
$parameters)
{
$empty
    const int tasks = $rows;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
    int row = first;
$indices
    for (int task = first; task < last; ++task) {
$bases
$body
$advance
    }
}
