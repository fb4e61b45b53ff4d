// One work-item a work-group. Rows have $length elements: too few for vectors along them, so these run
// across rows, lane l along row j + l. Elements that lie row behind row are loaded as they lie and
// turned over in registers, where register c then holds element c of each row, and results likewise
// back (see `interleave`). A task is a block of $width rows; the last one may be a part.
//
//     memory     | a0 a1 a2 b0 | b1 b2 c0 c1 | c2 d0 d1 d2 |
//     registers  | a0 b0 c0 d0 | a1 b1 c1 d1 | a2 b2 c2 d2 |
//
$head
$parameters)
{
    const int blocks = ($columns + $width - 1) / $width;
    const int tasks = $outer * blocks;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
$constants
    for (int task = first; task < last; ++task) {
        int flat = task / blocks;
        const int j = task % blocks * $width;
$indices
$bases
        if (j + $width <= $columns) {
$whole
        } else {
            const int left = $columns - j;
$rest
        }
    }
}
