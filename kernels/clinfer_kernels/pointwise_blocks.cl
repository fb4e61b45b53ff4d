// A work-group turns blocks of $side x $side elements of the last two loops: d, along which some
// operands are contiguous, and i, along which the outputs are. Those operands are read along d into
// local memory (its rows are one longer than the block, against bank conflicts), everything else and
// the result go along i. A work-item has one column of the block and every $step-th row.
$head
$parameters)
{
$locals
    const int x = get_local_id(0) % $side;
    const int y = get_local_id(0) / $side;
    const int blocks_d = ($nd + $side - 1) / $side;
    const int blocks_i = ($ni + $side - 1) / $side;
    const int tasks = $rows * blocks_d * blocks_i;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int first_i = task % blocks_i * $side;
        const int first_d = task / blocks_i % blocks_d * $side;
        int row = task / blocks_i / blocks_d;
$indices
$bases
        for (int k = y; k < $side; k += $step) {
            if (first_d + x < $nd && first_i + k < $ni) {
$read
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        const int i = first_i + x;
        for (int k = y; k < $side; k += $step) {
            const int d = first_d + k;
            if (d < $nd && i < $ni) {
$write
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
