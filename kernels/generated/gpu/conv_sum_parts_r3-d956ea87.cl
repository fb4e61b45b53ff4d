static float4 load_aligned_float32x4(const __global float* p) {
    return *(const __global float4*)p;
}
static void store_aligned_float32x4(float4 v, __global float* p) {
    *(__global float4*)p = v;
}
// out = end(sum over p of part[p]): the second launch of a product whose K was split among groups.
//
//     part[((p batches + z) M + i) N + j]
//
// A work-item makes WIDTH neighbouring results; parts are added in order, so that the result is the
// same in every run.
#define WIDTH 4 // results of a work-item
#define WG_SIZE 128

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void conv_sum_parts_r3(
        __global const float* restrict part,
        __global float* restrict y0,
        __global const float* restrict e0,
        __global const float* restrict e1,
        const int y0_o,
        const int y0_s0,
        const int e0_o,
        const int e0_s0,
        const int e1_o,
        const int e1_s0,
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
        if (j < N) {
            const long first = ((long)z * M + i) * N + j;
            const long each = (long)batches * M * N;
            float4 sum = load_aligned_float32x4(part + first);
            #pragma unroll 4
            for (int p = 1; p < parts; ++p) sum += load_aligned_float32x4(part + first + p * each);
            int flat = i;
            int i0;
            i0 = flat;
            const int y0_at = y0_o + i0 * y0_s0;
            const int e0_at = e0_o + i0 * e0_s0;
            const int e1_at = e1_o + i0 * e1_s0;
            {
                const int channel = z * N + j;
                const float4 v_e0 = load_aligned_float32x4(e0 + e0_at + channel);
                const float4 v_e1 = load_aligned_float32x4(e1 + e1_at + channel);
                const float4 z0 = sum + v_e0;
                const float4 z1 = v_e1 + z0;
                const float4 z2 = 0.0f;
                const float4 z3 = z2 > z1 ? z2 : z1;
                store_aligned_float32x4(z3, y0 + y0_at + channel);
            }
        }
    }
}
