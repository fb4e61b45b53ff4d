// One work-item a work-group. The last two loops, d (a strided operand's unit-stride dimension) and
// i (the outputs'), are cut into even blocks that stay in the first-level cache, and those into
// squares of $width x $width elements, which the operand's vectors along d fill and a transposition
// turns. The last square of a block overlaps the one before it, so that squares are whole unless the
// dimension itself is shorter than one.
//
//             i ->                       block of at most $block_d x $block_i
//        d  [ square ][ square ] ...
//        |  [ square ][ square ] ...
//
$head
$parameters)
{
    const int blocks_d = ($nd + $block_d - 1) / $block_d;
    const int blocks_i = ($ni + $block_i - 1) / $block_i;
    const int block_d = ($nd + blocks_d - 1) / blocks_d;
    const int block_i = ($ni + blocks_i - 1) / blocks_i;
    const int tasks = $rows * blocks_d * blocks_i;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
$constants
    for (int task = first; task < last; ++task) {
        const int first_i = task % blocks_i * block_i;
        const int first_d = task / blocks_i % blocks_d * block_d;
        const int end_i = min(first_i + block_i, $ni);
        const int end_d = min(first_d + block_d, $nd);
        const int left = min($width, end_i - first_i);
        const int depth = min($width, end_d - first_d);
        int row = task / blocks_i / blocks_d;
$indices
$bases
        for (int next_d = first_d; next_d < end_d; next_d += $width) {
            const int d = min(next_d, end_d - depth);
            for (int next_i = first_i; next_i < end_i; next_i += $width) {
                const int i = min(next_i, end_i - left);
                if (left == $width && depth == $width) {
$square
                } else {
$edge
                }
            }
        }
    }
$end
}
