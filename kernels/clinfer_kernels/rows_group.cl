// A work-group has $across x $deep work-items: $across rows, each shared by $deep work-items, which
// run along it $runs times: $purpose.
// Work-item (x, y) is number y of row base + x; $order.
$head
$parameters)
{
$locals
$places
    const int rows = $rows;
    const int tasks = (rows + $across - 1) / $across;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int row = task * $across + x;
        int flat = min(row, rows - 1);
$indices
$bases
$body
    }
}
