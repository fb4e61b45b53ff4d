typedef float8 float8_unaligned __attribute__((aligned(4)));
static float8 load_float32x8(const __global float* p) {
    return *(const __global float8_unaligned*)p;
}
static void store_float32x8(float8 v, __global float* p) {
    *(__global float8_unaligned*)p = v;
}
static float8 load_part_float32x8(const __global float* p, int s, int n) {
    float lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int j = 0; j < n; ++j) lanes[j] = p[j * s];
    return (float8)(lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6], lanes[7]);
}
static void store_part_float32x8(float8 v, __global float* p, int s, int n) {
    const float lanes[8] = {v.s0, v.s1, v.s2, v.s3, v.s4, v.s5, v.s6, v.s7};
    for (int j = 0; j < n; ++j) p[j * s] = lanes[j];
}
// One work-item a work-group. Neighbouring rows are neighbours in memory: vectors run across them
// (index j), and a row's elements are taken in one after another. A task is a block of 32 rows, or
// a part of their elements; the last block's rows are taken one vector at a time.
//
//              j ->                          block
//       r0  [ v0 | v1 | ... ]
//       |   [ v0 | v1 | ... ]
//
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void reduce_columns_mean_r21(
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
    const int blocks = (n1 + 32 - 1) / 32;
    const int tasks = n0 * blocks;
    const int share = (tasks + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
    const int first = (int)get_group_id(0) * share;
    const int last = min(first + share, tasks);
    const float count = (float)length;
    for (int task = first; task < last; ++task) {
        const int begin = 0;
        const int end = m0;
        int flat = task / blocks;
        int j = task % blocks * 32;
        int i0;
        i0 = flat;
        const int x0_at = x0_o + i0 * x0_s0;
        const int y0_at = y0_o + i0 * y0_s0;
        if (j + 32 <= n1) {
            float8 a0_0 = 0.0f;
            float8 a1_0 = 0.0f;
            float8 a2_0 = 0.0f;
            float8 a3_0 = 0.0f;
            for (int r0 = begin; r0 < end; ++r0) {
                const int x0_row = x0_at + r0 * x0_t0;
                {
                    const float8 v0 = load_float32x8(x0 + x0_row + j);
                    const float8 t0 = a0_0 + v0;
                    a0_0 = t0;
                }
                {
                    const float8 v0 = load_float32x8(x0 + x0_row + (j + 8));
                    const float8 t0 = a1_0 + v0;
                    a1_0 = t0;
                }
                {
                    const float8 v0 = load_float32x8(x0 + x0_row + (j + 16));
                    const float8 t0 = a2_0 + v0;
                    a2_0 = t0;
                }
                {
                    const float8 v0 = load_float32x8(x0 + x0_row + (j + 24));
                    const float8 t0 = a3_0 + v0;
                    a3_0 = t0;
                }
            }
            {
                const float8 t0 = a0_0 / (float8)(count);
                store_float32x8(t0, y0 + y0_at + j);
            }
            {
                const float8 t0 = a1_0 / (float8)(count);
                store_float32x8(t0, y0 + y0_at + (j + 8));
            }
            {
                const float8 t0 = a2_0 / (float8)(count);
                store_float32x8(t0, y0 + y0_at + (j + 16));
            }
            {
                const float8 t0 = a3_0 / (float8)(count);
                store_float32x8(t0, y0 + y0_at + (j + 24));
            }
            continue;
        }
        for (; j < n1; j += 8) {
            const int left = min(8, n1 - j);
            float8 a0_0 = 0.0f;
            for (int r0 = begin; r0 < end; ++r0) {
                const int x0_row = x0_at + r0 * x0_t0;
                {
                    const float8 v0 = left >= 8 ? load_float32x8(x0 + x0_row + j) : load_part_float32x8(x0 + x0_row + j, 1, left);
                    const float8 t0 = a0_0 + v0;
                    a0_0 = t0;
                }
            }
            {
                const float8 t0 = a0_0 / (float8)(count);
                if (left >= 8) {
                    store_float32x8(t0, y0 + y0_at + j);
                } else {
                    store_part_float32x8(t0, y0 + y0_at + j, 1, left);
                }
            }
        }
    }
}
