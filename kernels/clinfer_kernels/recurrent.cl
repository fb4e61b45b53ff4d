// A work-group takes $rows rows of the batch in one direction (group 1) through all time steps; its
// work-items take vectors of units, then the next. A loop over groups around the barriers is more
// than PoCL 3.0 compiles right. Rows beyond the batch repeat the last one and are not stored.
// After its own length a row keeps its state, and its outputs are 0.
//
//     state    the rows' hidden states [rows, P], those before and after a step in turn
//     cells    the LSTM's cells [rows, P]; for a GRU what the reset gate leaves of the states
$head
$parameters)
{
    const int item = get_local_id(0);
    const int d = get_group_id(1);
    const int first = get_group_id(0) * $rows;
    const int backward = d >= backward_from;
    const __global $real* const weights = r + r_o + d * units * hidden * $gates;
$places
$rows_text
    for (int i = item; i < $rows * units; i += $local) {
        const int n = min(first + i / units, rows_n - 1);
        const int j = i % units;
$begin
    }
$sync
    int now = 0;
$loops
    for (int i = item; i < $rows * units; i += $local) {
        const int n = first + i / units;
        const int j = i % units;
        if (n < rows_n && j < hidden) {
$end
        }
    }
}
