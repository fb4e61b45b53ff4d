// One work-item a work-group. Neighbouring rows are neighbours in memory: vectors run across them
// (index j), and a row's elements are taken in one after another. A task is a block of $block rows, or
// a part of their elements; the last block's rows are taken one vector at a time.
//
//              j ->                          block
//       r0  [ v0 | v1 | ... ]
//       |   [ v0 | v1 | ... ]
//
$head
$parameters)
{
    const int blocks = ($columns + $block - 1) / $block;
    const int tasks = $tasks;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
$constants
    for (int task = first; task < last; ++task) {
$range
        int flat = $flat / blocks;
        int j = $flat % blocks * $block;
$indices
$bases
        if (j + $block <= $columns) {
$whole
            continue;
        }
        for (; j < $columns; j += $width) {
            const int left = min($width, $columns - j);
$rest
        }
    }
}
