// y[pixel][c] = epilogue(max over the taps t of x[pixel at t][c]), padding left out
//
//     index    -2 -1 | 0  1  2  3  4  5  6 | 7     A window's taps in the input are a range along
//     window       *   *     *                     the innermost axis, begin to end; along the
//              first   begin   end                 other axes those in the padding are skipped.
//
// A task is one pixel by a block of channels. Windows are walked by rows.
#define LANES 1 // channels of a vector

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
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
    for (int task = (int)get_global_id(0); task < tasks; task += (int)get_global_size(0)) {
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
            float acc = (float)((-INFINITY));
            for (int row = 0; row < rows; ++row) {
                int outer = row;
                int t1;
                t1 = outer;
                const int j1 = o1 * step1 + origin1 + t1 * tap_step1;
                if ((uint)j1 >= (uint)size1) continue;
                const int line_at = x_o + o0 * x_s0 + j1 * x_s1;
                for (int t = begin; t < end; ++t) {
                    const int at = line_at + (first + t * tap_step2) * x_s2;
                    const float value = x[at + channel];
                    acc = value > acc ? value : acc;
                }
            }
            const float pooled = acc;
            y0[y0_at + channel] = pooled;
        }
    }
}
