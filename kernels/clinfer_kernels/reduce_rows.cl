// One work-item a work-group; a task is a row, or a part of one. Vectors run along the row's last
// dimension into $unroll independent states, so that steps do not wait for each other; the states are
// joined, then the lanes of the last one by halves.
//
//     row   | v0 v1 v2 v3 | v0 v1 v2 v3 | ... | v0 | v0 | part of v0 |      $width lanes each
//
$head
$parameters)
{
    const int tasks = $tasks;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
$constants
    for (int task = first; task < last; ++task) {
$range
        int flat = $flat;
$indices
$bases
$run
$finish
    }
}
