// dense[row][i][c] = x at any strides, in the type that sums are kept in; a task is one row.
$head
$parameters)
{
    for (int row = get_global_id(0); row < rows; row += get_global_size(0)) {
        const int row_at = $row_at;
        const long to = (long)row * $width * $channels;
        for (int i = 0; i < $width; ++i) {
            for (int c = 0; c < $channels; ++c) {
                const int at = row_at + i * $w_step + c * $c_step;
$copy
            }
        }
    }
}
