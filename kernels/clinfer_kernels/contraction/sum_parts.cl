// out = end(sum over p of part[p]): the second launch of a product whose K was split among groups.
//
//     part[((p batches + z) M + i) N + j]
//
// A work-item makes WIDTH neighbouring results; parts are added in order, so that the result is the
// same in every run.
#define WIDTH $width // results of a work-item
#define WG_SIZE $items

$head
$parameters)
{
    const int item = get_local_id(0);
    for (int task = $first_task; task < tasks; task += $task_step) {
$place
$batch
        if (j < N) {
            const long first = ((long)z * M + i) * N + j;
            const long each = (long)batches * M * N;
            $vec sum = $load_first;
            #pragma unroll 4
            for (int p = 1; p < parts; ++p) sum += $load_part;
$row
            {
$end
            }
        }
$after
    }
}
