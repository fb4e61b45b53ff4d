// One work-item a work-group; rows of the output one after another. A row is the part before the
// input's row, the copy of it, and the part behind:
//
//     0 ... low | low ... high | high ... $n        low = begin, high = begin + input size, cut to
//                                                   the output's row
//
$head
$parameters)
{
    const int tasks = $rows;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
    int row = first;
$indices
$value
    for (int task = first; task < last; ++task) {
        const int y0_at = $y_at;
$source
        const int low = outside ? $n : clamp($b, 0, $n);
        const int high = outside ? $n : clamp($b + $m, low, $n);
        for (int i = 0; i < low; ++i) {
            $fill
        }
        for (int i = low; i < high; ++i) {
            $copy
        }
        for (int i = high; i < $n; ++i) {
            $fill
        }
$advance
    }
}
