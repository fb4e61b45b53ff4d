// A work-item owns whole lines of updates (all that can hit the same output elements) and applies
// them in order, so that duplicates give the sequential result without atomics.
//
//     elements   a line runs along the axis: t = 0, 1, ... of updates[i..., t, ...]
//     nd         a line runs over all index tuples, for one place behind them
//
//     y0[y0_at(i0, i1, ...) + sum over c of index_c * a_c] = combine(y0[...], x2[x2_at + ...])
//
// index_c is the place along its axis of component c; updates whose places are not there are left
// out, and reported.
$head
$parameters)
{
    const int lines = $lines;
    for (int line = get_global_id(0); line < lines; line += get_global_size(0)) {
        int flat = line;
$indices
$bases
$loops
    }
}
