// One work-item a work-group; a work-group takes consecutive rows, `together` of them at a time, and
// runs along each $runs times: $purpose.
$head
$parameters)
{
    const int rows = $rows;
    const int share = (rows + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, rows);
$constants
    for (int block = first; block < last; block += together) {
        const int stop = min(block + together, last);
$body
    }
$end
}
