// One work-item a work-group. A task is a piece of a row, at most $piece elements; a work-group has
// consecutive tasks, so that the indices of the row move on like an odometer.
//
//     row (i0, i1, ...)   |--- piece 0 ---|--- piece 1 ---|-- 2 --|      $n elements
//
$head
$parameters)
{
    const int pieces = ($n + $piece - 1) / $piece;
    const int tasks = $rows * pieces;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
$constants
    int begin = first % pieces * $piece;
    int row = first / pieces;
$indices
    for (int task = first; task < last; ++task) {
        const int end = min(begin + $piece, $n);
$bases
        int i = begin;
        for (; i + $width <= end; i += $width) {
$vector
        }
        if (i < end) {
            const int left = end - i;
$rest
        }
        begin += $piece;
        if (begin < $n) {
            continue;
        }
        begin = 0;
$advance
    }
$end
}
