// out = end(sum over p of part[p]): the second launch of a product whose K was split among groups.
//
//     part[((p batches + z) M + i) N + j]
//
// A work-item makes WIDTH neighbouring results; parts are added in order, so that the result is the
// same in every run.
#define WIDTH 1 // results of a work-item
#define WG_SIZE 128

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void matmul_sum_parts(
        __global const float* restrict part,
        __global float* restrict out,
        const int out_offset,
        const int out_row,
        __global const float* restrict e0,
        const int e0_offset,
        const int e0_row,
        const int M,
        const int N,
        const int batches,
        const int parts,
        const int col_tasks,
        const int tasks)
{
    const int item = get_local_id(0);
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int j = task % col_tasks * WIDTH;
        const int i = task / col_tasks % M;
        const int z = task / col_tasks / M;
        const long out_at = out_offset;
        const long e0_at = e0_offset;
        if (j < N) {
            const long first = ((long)z * M + i) * N + j;
            const long each = (long)batches * M * N;
            float sum = part[first];
            #pragma unroll 4
            for (int p = 1; p < parts; ++p) sum += part[first + p * each];
            {
                const long at = out_at + (long)i * out_row + j;
                const long at0 = e0_at + (long)i * e0_row + j;
                const float x0 = e0[at0];
                const float t0 = sum + x0;
                out[at] = t0;
            }
        }
    }
}
