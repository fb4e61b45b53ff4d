// A work-group has $across x $deep work-items: $across neighbouring rows, each taken in by $deep
// work-items in strides, whose states are then joined in local memory by a tree. Work-item (x, y) is
// number y of row base + x.
$head
$parameters)
{
$locals
$places
    const int rows = $rows;
    const int tasks = (rows + $across - 1) / $across$times_parts;
$constants
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
$range
        const int row = $flat * $across + x;
        int flat = min(row, rows - 1);
$indices
$bases
$run
        if (y == 0 && row < rows) {
$finish
        }
    }
}
