typedef float8 float8_unaligned __attribute__((aligned(4)));
static float8 load_float32x8(const __global float* p) {
    return *(const __global float8_unaligned*)p;
}
// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is split in two so that n times its
// high part is exact; 2^n is applied as two factors, so that overflow and denormal results come out
// right. Relative error of the polynomial: 2e-9.
static float8 exp_float8(float8 x) {
    x = x < -105.0f ? (float8)(-105.0f) : x;
    x = x > 89.5f ? (float8)(89.5f) : x;
    const float8 shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are n
    const int8 n = as_int8(shifted) - 0x4B400000;
    const float8 whole = shifted - 12582912.0f;
    float8 r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    float8 p = r * 1.383654191158712e-3f + 8.375054225325584e-3f;
    p = p * r + 0.04166824370622635f;
    p = p * r + 0.16666416823863983f;
    p = p * r + 0.49999991059303284f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int8 half_n = n >> 1;
    return p * as_float8((half_n + 127) << 23) * as_float8((n - half_n + 127) << 23);
}
static void store_float32x8(float8 v, __global float* p) {
    *(__global float8_unaligned*)p = v;
}
static float exp_float(float x) { return exp(x); }
// y[pixel][c] = epilogue(sum over taps t of x[pixel at t][c] * w[t][c]): each channel by itself.
//
//     input columns   |  |  |  |  |  |  |  |      A tile is PIXELS outputs side by side, LANES
//                     \________/                  channels. Per row of the window each of the
//                        \________/               COLUMNS inputs is read once and added to all
//     outputs          0  1  2 ...   (STEP 1)     outputs whose windows it is in.
//
// A tap's weights are loaded where the first output of the tile needs them: of wide windows no more
// taps than outputs are in registers at a time.
//
// A task is a row of outputs by a block of channels. Bit j of `columns` says whether column j lies
// in the input. Channels beyond the last whole vector are done one by one.
#define PIXELS 7 // outputs of a tile along the innermost axis
#define LANES 8 // channels of a vector
#define WIDTH 3 // taps along the innermost axis,
#define STEP 1 // its stride
#define TAP_STEP 1 // and its dilation
#define REACH ((WIDTH - 1) * TAP_STEP) // from the first tap to the last
#define LOW (REACH < 0 ? REACH : 0) // the first column, counted from the first tap
#define COLUMNS ((PIXELS - 1) * STEP + (REACH < 0 ? -REACH : REACH) + 1)

typedef float8 vec;

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void depthwise_3s1_r3(
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
        const int rows,
        const int C,
        const int w_o,
        const int channel_block,
        const int channel_tasks,
        const int tasks)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel0 = task % channel_tasks * channel_block;
        const int channel1 = channel0 + channel_block < C ? channel0 + channel_block : C;
        const int whole = channel0 + (channel1 - channel0) / LANES * LANES;
        const int line = task / channel_tasks;
        int position = line;
        int o0, o1;
        o1 = position % out1;
        position /= out1;
        o0 = position;
        for (int o = 0; o < out2; o += PIXELS) {
            const int first = o * step2 + origin2 + LOW;
            long columns = 0;
            #pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                columns |= (long)((uint)(first + j) < (uint)size2) << j;
            }
            const int stored = o + PIXELS < out2 ? PIXELS : out2 - o;
            int y0_rows[PIXELS];
            int e0_rows[PIXELS];
            #pragma unroll
            for (int r = 0; r < PIXELS; ++r) {
                int flat = line * out2 + (r < stored ? o + r : o);
                int i0;
                i0 = flat;
                const int y0_at = y0_o + i0 * y0_s0;
                const int e0_at = e0_o + i0 * e0_s0;
                y0_rows[r] = y0_at;
                e0_rows[r] = e0_at;
            }
            for (int channel = channel0; channel < whole; channel += LANES) {
                vec acc[PIXELS];
                #pragma unroll
                for (int r = 0; r < PIXELS; ++r) acc[r] = 0;
                for (int row = 0; row < rows; ++row) {
                    int outer = row;
                    int t1;
                    t1 = outer;
                    const int j1 = o1 * step1 + origin1 + t1 * tap_step1;
                    if ((uint)j1 >= (uint)size1) continue;
                    const __global float* tap_w = w + w_o + row * WIDTH * C + channel;
                    vec y[WIDTH];
                    const int line_at = x_o + o0 * x_s0 + j1 * x_s1;
                    int at = line_at + first * x_s2 + channel;
                    #pragma unroll
                    for (int j = 0; j < COLUMNS; ++j) {
                        const int t = (j + LOW) / TAP_STEP;
                        if ((j + LOW) % TAP_STEP == 0 && t >= 0 && t < WIDTH) y[t] = load_float32x8(tap_w + t * C);
                        if (columns & 1L << j) {
                            const vec value = load_float32x8(x + at);
                            #pragma unroll
                            for (int r = 0; r < PIXELS; ++r) {
                                const int from = j + LOW - r * STEP;
                                const int t = from / TAP_STEP;
                                if (from % TAP_STEP == 0 && t >= 0 && t < WIDTH) {
                                    acc[r] += value * y[t];
                                }
                            }
                        }
                        at += x_s2;
                    }
                }
                #pragma unroll 7
                for (int r = 0; r < PIXELS; ++r) {
                    if (r >= stored) continue;
                    const int y0_at = y0_rows[r];
                    const int e0_at = e0_rows[r];
                    const vec sum = acc[r];
                    const float8 v_e0 = load_float32x8(e0 + e0_at + channel);
                    const float8 z0 = sum + v_e0;
                    const float8 z1 = -z0;
                    const float8 z2 = exp_float8(z1);
                    const float8 z3 = 1.0f;
                    const float8 z4 = z2 + z3;
                    const float8 z5 = 1.0f / z4;
                    const float8 z6 = z0 * z5;
                    store_float32x8(z6, y0 + y0_at + channel);
                }
            }
            for (int r = 0; r < stored; ++r) {
                const int y0_at = y0_rows[r];
                const int e0_at = e0_rows[r];
                for (int channel = whole; channel < channel1; ++channel) {
                    float sum = 0;
                    for (int row = 0; row < rows; ++row) {
                        int outer = row;
                        int t1;
                        t1 = outer;
                        const int j1 = o1 * step1 + origin1 + t1 * tap_step1;
                        if ((uint)j1 >= (uint)size1) continue;
                        const int line_at = x_o + o0 * x_s0 + j1 * x_s1;
                        for (int t = 0; t < WIDTH; ++t) {
                            const int column = (o + r) * step2 + origin2 + t * TAP_STEP;
                            if ((uint)column >= (uint)size2) continue;
                            const int at = line_at + column * x_s2 + channel;
                            sum += x[at] * w[w_o + (row * WIDTH + t) * C + channel];
                        }
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
        }
    }
}
