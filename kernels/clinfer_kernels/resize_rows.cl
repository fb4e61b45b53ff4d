// One work-item a work-group; rows of the output one after another. The taps of the outer axes are
// found once a row, those of the innermost axis, where it is resized, once an element.
$head
$parameters)
{
    const int tasks = $rows;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
    int row = first;
$indices
    for (int task = first; task < last; ++task) {
$starts
        for (int i$inner = 0; i$inner < n$inner; ++i$inner) {
$element
        }
$advance
    }
}
