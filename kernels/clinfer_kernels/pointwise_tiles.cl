// One work-item a work-group. The last two loops, d (a strided operand's unit-stride dimension) and
// i (the outputs'), are cut into blocks that stay in the first-level cache, and those into squares
// of $width x $width elements, which the operand's vectors along d fill and a transposition turns:
//
//             i ->                       block of $block_d x $block_i
//        d  [ square ][ square ] ...
//        |  [ square ][ square ] ...
//
$head
$parameters)
{
    const int blocks_d = ($nd + $block_d - 1) / $block_d;
    const int blocks_i = ($ni + $block_i - 1) / $block_i;
    const int tasks = $rows * blocks_d * blocks_i;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
    for (int task = first; task < last; ++task) {
        const int first_i = task % blocks_i * $block_i;
        const int first_d = task / blocks_i % blocks_d * $block_d;
        int row = task / blocks_i / blocks_d;
$indices
$bases
        const int end_i = min(first_i + $block_i, $ni);
        const int end_d = min(first_d + $block_d, $nd);
        for (int i = first_i; i < end_i; i += $width) {
            const int left = min($width, end_i - i);
            for (int d = first_d; d < end_d; d += $width) {
                const int depth = min($width, end_d - d);
                if (left == $width && depth == $width) {
$square
                } else {
$edge
                }
            }
        }
    }
}
