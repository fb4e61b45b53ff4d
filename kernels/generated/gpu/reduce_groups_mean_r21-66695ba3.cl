// A work-group has 32 x 4 work-items: 32 neighbouring rows, each taken in by 4
// work-items in strides, whose states are then joined in local memory by a tree. Work-item (x, y) is
// number y of row base + x.
__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void reduce_groups_mean_r21(
        __global const float* restrict x0,
        __global float* restrict y0,
        const int n0,
        const int n1,
        const int m0,
        const int x0_o,
        const int x0_s0,
        const int x0_s1,
        const int x0_t0,
        const int y0_o,
        const int y0_s0,
        const int y0_s1,
        const int length)
{
    __local float tree0_float[128];
    const int x = get_local_id(0) % 32;
    const int y = get_local_id(0) / 32;
    const int rows = n0 * n1;
    const int tasks = (rows + 32 - 1) / 32;
    const float count = (float)length;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int begin = 0;
        const int end = m0;
        const int row = task * 32 + x;
        int flat = min(row, rows - 1);
        int i0;
        int i1;
        i1 = flat % n1;
        flat /= n1;
        i0 = flat;
        const int x0_at = x0_o + i0 * x0_s0 + i1 * x0_s1;
        const int y0_at = y0_o + i0 * y0_s0 + i1 * y0_s1;
        float a0_0 = 0.0f;
        for (int r = begin + y; r < end; r += 4) {
            int element = r;
            int r0;
            r0 = element;
            const int x0_row = x0_at + r0 * x0_t0;
            {
                const float v0 = x0[x0_row];
                const float t0 = a0_0 + v0;
                a0_0 = t0;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        tree0_float[get_local_id(0)] = a0_0;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (y < 1) {
            {
                const float t0 = a0_0 + tree0_float[get_local_id(0) + 32];
                a0_0 = t0;
            }
            {
                const float t0 = a0_0 + tree0_float[get_local_id(0) + 64];
                a0_0 = t0;
            }
            {
                const float t0 = a0_0 + tree0_float[get_local_id(0) + 96];
                a0_0 = t0;
            }
            tree0_float[get_local_id(0)] = a0_0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        const float a_0 = tree0_float[x];
        if (y == 0 && row < rows) {
            const float t0 = a_0 / count;
            y0[y0_at] = t0;
        }
    }
}
