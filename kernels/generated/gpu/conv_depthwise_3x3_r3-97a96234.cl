static float4 load_aligned_float32x4(const __global float* p) {
    return *(const __global float4*)p;
}
// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is split in two so that n times its
// high part is exact; 2^n is applied as two factors, so that overflow and denormal results come out
// right. Relative error of the polynomial: 2e-9.
static float4 exp_float4(float4 x) {
    x = x < -105.0f ? (float4)(-105.0f) : x;
    x = x > 89.5f ? (float4)(89.5f) : x;
    const float4 shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are n
    const int4 n = as_int4(shifted) - 0x4B400000;
    const float4 whole = shifted - 12582912.0f;
    float4 r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    float4 p = r * 1.383654191158712e-3f + 8.375054225325584e-3f;
    p = p * r + 0.04166824370622635f;
    p = p * r + 0.16666416823863983f;
    p = p * r + 0.49999991059303284f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int4 half_n = n >> 1;
    return p * as_float4((half_n + 127) << 23) * as_float4((n - half_n + 127) << 23);
}
static void store_aligned_float32x4(float4 v, __global float* p) {
    *(__global float4*)p = v;
}
// y[pixel][c] = epilogue(sum over taps t of x[pixel at t][c] * w[t][c]): depthwise, on class "gpu".
//
// A work-item makes WIDTH neighbouring channels of a pixel; neighbours have the next channels. The
// taps are written out: where a pixel's window begins is computed once, and no tap divides.
#define WIDTH 4 // channels of a work-item

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void conv_depthwise_3x3_r3(
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
        const int channels,
        const int col_tasks,
        const int tasks)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % col_tasks * WIDTH;
        int flat = task / col_tasks;
        int position = flat;
        int o0, o1, o2;
        o2 = position % out2;
        position /= out2;
        o1 = position % out1;
        position /= out1;
        o0 = position;
        const int first1 = o1 * step1 + origin1;
        const int first2 = o2 * step2 + origin2;
        const int at = x_o + o0 * x_s0 + first1 * x_s1 + first2 * x_s2 + channel;
        int i0;
        i0 = flat;
        const int y0_at = y0_o + i0 * y0_s0;
        const int e0_at = e0_o + i0 * e0_s0;
        float4 sum = 0;
        if ((uint)(first1) < (uint)size1 && (uint)(first2) < (uint)size2) sum += load_aligned_float32x4(x + at) * load_aligned_float32x4(w + w_o + 0 * channels + channel);
        if ((uint)(first1) < (uint)size1 && (uint)(first2 + 1 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 1 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 1 * channels + channel);
        if ((uint)(first1) < (uint)size1 && (uint)(first2 + 2 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 2 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 2 * channels + channel);
        if ((uint)(first1 + 1 * tap_step1) < (uint)size1 && (uint)(first2) < (uint)size2) sum += load_aligned_float32x4(x + at + 1 * tap_step1 * x_s1) * load_aligned_float32x4(w + w_o + 3 * channels + channel);
        if ((uint)(first1 + 1 * tap_step1) < (uint)size1 && (uint)(first2 + 1 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 1 * tap_step1 * x_s1 + 1 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 4 * channels + channel);
        if ((uint)(first1 + 1 * tap_step1) < (uint)size1 && (uint)(first2 + 2 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 1 * tap_step1 * x_s1 + 2 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 5 * channels + channel);
        if ((uint)(first1 + 2 * tap_step1) < (uint)size1 && (uint)(first2) < (uint)size2) sum += load_aligned_float32x4(x + at + 2 * tap_step1 * x_s1) * load_aligned_float32x4(w + w_o + 6 * channels + channel);
        if ((uint)(first1 + 2 * tap_step1) < (uint)size1 && (uint)(first2 + 1 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 2 * tap_step1 * x_s1 + 1 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 7 * channels + channel);
        if ((uint)(first1 + 2 * tap_step1) < (uint)size1 && (uint)(first2 + 2 * tap_step2) < (uint)size2) sum += load_aligned_float32x4(x + at + 2 * tap_step1 * x_s1 + 2 * tap_step2 * x_s2) * load_aligned_float32x4(w + w_o + 8 * channels + channel);
        const float4 v_e0 = load_aligned_float32x4(e0 + e0_at + channel);
        const float4 z0 = sum + v_e0;
        const float4 z1 = -z0;
        const float4 z2 = exp_float4(z1);
        const float4 z3 = 1.0f;
        const float4 z4 = z2 + z3;
        const float4 z5 = 1.0f / z4;
        const float4 z6 = z0 * z5;
        store_aligned_float32x4(z6, y0 + y0_at + channel);
    }
}
