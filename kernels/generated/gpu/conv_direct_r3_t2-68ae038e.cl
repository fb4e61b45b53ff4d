static float exp_float(float x) { return exp(x); }
// y[pixel][g M + m] =
//     epilogue(sum over taps t, channels c of x[pixel at t][g C + c] * w[g][m][c][t])
//
// One result a work-item; neighbours have neighbouring channels. Both tensors at any strides.
__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void conv_direct_r3_t2(
        __global const float* restrict x,
        __global const float* restrict w,
        __global float* restrict y0,
        __global const float* restrict e0,
        const int y0_o,
        const int y0_s0,
        const int e0_o,
        const int e0_s0,
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
        const int w_o,
        const int w_group,
        const int w_filter,
        const int w_channel,
        const int w_t0,
        const int w_t1,
        const int w_n0,
        const int w_n1,
        const int window,
        const int groups,
        const int C,
        const int M,
        const int tasks)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % (groups * M);
        const int group = channel / M;
        const int filter_w = w_o + group * w_group + channel % M * w_filter;
        int flat = task / (groups * M);
        int position = flat;
        int o0, o1, o2;
        o2 = position % out2;
        position /= out2;
        o1 = position % out1;
        position /= out1;
        o0 = position;
        int i0;
        i0 = flat;
        const int y0_at = y0_o + i0 * y0_s0;
        const int e0_at = e0_o + i0 * e0_s0;
        float sum = 0;
        for (int tap = 0; tap < window; ++tap) {
            int rest = tap;
            int t1, t2;
            t2 = rest % taps2;
            rest /= taps2;
            t1 = rest;
            const int j1 = o1 * step1 + origin1 + t1 * tap_step1;
            if ((uint)j1 >= (uint)size1) continue;
            const int j2 = o2 * step2 + origin2 + t2 * tap_step2;
            if ((uint)j2 >= (uint)size2) continue;
            const int at = x_o + o0 * x_s0 + j1 * x_s1 + j2 * x_s2 + group * C * 1;
            const int tap_w = filter_w + tap % w_n1 * w_t1 + tap / w_n1 * w_t0;
            for (int c = 0; c < C; ++c) sum += x[at + c] * w[tap_w + c * w_channel];
        }
        const float v_e0 = e0[e0_at + channel];
        const float z0 = sum + v_e0;
        const float z1 = -z0;
        const float z2 = exp_float(z1);
        const float z3 = 1.0f;
        const float z4 = z2 + z3;
        const float z5 = 1.0f / z4;
        const float z6 = z0 * z5;
        y0[y0_at + channel] = z6;
    }
}
