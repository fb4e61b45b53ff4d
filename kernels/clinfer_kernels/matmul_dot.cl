// out = epilogue(a b) for few rows: a work-group makes COLS results of one row, its work-items
// sharing K in SLICES interleaved slices that are summed in local memory at the end.
//
//     sum(slice) = sum over k = slice, slice + SLICES, ... of a[i][k] * b[k][j]
//
// Neighbouring work-items read neighbouring elements of b: along N, or along K where b is stored
// that way.
#define COLS $cols // results of a work-group
#define SLICES $slices // work-items per result

$head
$parameters)
{
    __local $acc_type partial[SLICES * COLS];
    const int item = get_local_id(0);
    const int c = $item_col;
    const int slice = $item_slice;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int j = task % col_tasks * COLS + c;
        const int i = task / col_tasks % M;
        const int z = task / col_tasks / M;
$batch
        $acc_type sum = 0;
        if (j < N) {
            for (int k = slice; k < K; k += SLICES) sum += $load_a * $load_b;
        }
        partial[slice * COLS + c] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (slice == 0 && j < N) {
            for (int s = 1; s < SLICES; ++s) sum += partial[s * COLS + c];
$epilogue
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
