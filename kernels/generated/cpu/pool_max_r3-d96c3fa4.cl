typedef float8 float8_unaligned __attribute__((aligned(4)));
static float8 load_float32x8(const __global float* p) {
    return *(const __global float8_unaligned*)p;
}
static float8 load_part_float32x8(const __global float* p, int s, int n) {
    float lanes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int j = 0; j < n; ++j) lanes[j] = p[j * s];
    return (float8)(lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6], lanes[7]);
}
static void store_float32x8(float8 v, __global float* p) {
    *(__global float8_unaligned*)p = v;
}
static void store_part_float32x8(float8 v, __global float* p, int s, int n) {
    const float lanes[8] = {v.s0, v.s1, v.s2, v.s3, v.s4, v.s5, v.s6, v.s7};
    for (int j = 0; j < n; ++j) p[j * s] = lanes[j];
}
// y[pixel][c] = epilogue(max over the taps t of x[pixel at t][c]), padding left out
//
//     index    -2 -1 | 0  1  2  3  4  5  6 | 7     A window's taps in the input are a range along
//     window       *   *     *                     the innermost axis, begin to end; along the
//              first   begin   end                 other axes those in the padding are skipped.
//
// A task is one pixel by a block of channels. Windows are walked by rows.
#define LANES 8 // channels of a vector

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void pool_max_r3(
        __global const float* restrict x,
        __global float* restrict y0,
        const int y0_o,
        const int y0_s0,
        const int x_o,
        const int x_s0,
        const int x_s1,
        const int out1,
        const int size1,
        const int taps1,
        const int step1,
        const int tap_step1,
        const int origin1,
        const int x_s2,
        const int out2,
        const int size2,
        const int taps2,
        const int step2,
        const int tap_step2,
        const int origin2,
        const int rows,
        const int C,
        const int channel_block,
        const int channel_tasks,
        const int tasks)
{
    for (int task = (long)tasks * (get_global_id(0)) / get_global_size(0); task < (long)tasks * (get_global_id(0) + 1) / get_global_size(0); task += 1) {
        const int channel0 = task % channel_tasks * channel_block;
        const int channel1 = channel0 + channel_block < C ? channel0 + channel_block : C;
        const int pixel = task / channel_tasks;
        int position = pixel;
        int o0, o1, o2;
        o2 = position % out2;
        position /= out2;
        o1 = position % out1;
        position /= out1;
        o0 = position;
        int flat = pixel;
        int i0;
        i0 = flat;
        const int y0_at = y0_o + i0 * y0_s0;
        const int first = o2 * step2 + origin2;
        const int begin = first < 0 ? (tap_step2 - 1 - first) / tap_step2 : 0;
        const int reach = (size2 - first + tap_step2 - 1) / tap_step2;
        const int end = reach < taps2 ? reach : taps2;
        for (int channel = channel0; channel < channel1; channel += LANES) {
            const int left = channel1 - channel;
            float8 acc = (float8)((-INFINITY));
            for (int row = 0; row < rows; ++row) {
                int outer = row;
                int t1;
                t1 = outer;
                const int j1 = o1 * step1 + origin1 + t1 * tap_step1;
                if ((uint)j1 >= (uint)size1) continue;
                const int line_at = x_o + o0 * x_s0 + j1 * x_s1;
                for (int t = begin; t < end; ++t) {
                    const int at = line_at + (first + t * tap_step2) * x_s2;
                    const float8 value = left >= LANES ? load_float32x8(x + at + channel) : load_part_float32x8(x + at + channel, 1, left);
                    acc = value > acc ? value : acc;
                }
            }
            const float8 pooled = acc;
            if (left >= 8) {
                store_float32x8(pooled, y0 + y0_at + channel);
            } else {
                store_part_float32x8(pooled, y0 + y0_at + channel, 1, left);
            }
        }
    }
}
