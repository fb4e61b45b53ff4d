// out = end(sum over p of part[p]): the second launch of a product whose K was split among groups.
//
//     part[((p batches + z) M + i) N + j]
//
// A work-item makes WIDTH neighbouring results; parts are added in order, so that the result is the
// same in every run.
#define WIDTH $width // results of a work-item

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int j = task % col_tasks * WIDTH;
        const int i = task / col_tasks % M;
        const int z = task / col_tasks / M;
        const long first = ((long)z * M + i) * N + j;
        const long each = (long)batches * M * N;
$batch
        $vec sum = $load_first;
        #pragma unroll 4
        for (int p = 1; p < parts; ++p) sum += $load_part;
$row
        {
$end
        }
    }
}
