// Each block of a row of x as bytes: q = round(x / scale), scale = max |x| / 127; and its two parts,
// scale and scale times the sum of q. Where a number is not finite, the scale is NaN.
$head
$parameters)
{
    const int blocks = K / block;
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const __global float* from = x + x_offset + (long)task * x_row;
        __global char* to = (__global char*)q + (long)task * K;
        __global float* part = parts + (long)task * blocks * 2;
        for (int first = 0; first < K; first += block) {
            float8 most = 0;
            float8 none = 0;
            for (int k = first; k < first + block; k += 8) {
                const float8 value = load_float32x8(from + k);
                const float8 size = abs_float8(value);
                most = size > most ? size : most;
                none += value * 0.0f;
            }
            const float4 four = most.lo > most.hi ? most.lo : most.hi;
            const float2 two = four.lo > four.hi ? four.lo : four.hi;
            const float largest = two.lo > two.hi ? two.lo : two.hi;
            const float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
            int8 sums = 0;
            for (int k = first; k < first + block; k += 8) {
                const float8 scaled = load_float32x8(from + k) * inverse;
                const int8 whole = near_bits_float8(scaled) - 0x4B400000;
                sums += whole;
                store_int8x8(cvt_char8_int8(whole), to + k);
            }
            const int4 sum4 = sums.lo + sums.hi;
            const float4 rest = none.lo + none.hi;
            const float scale = largest / 127.0f + (rest.s0 + rest.s1 + rest.s2 + rest.s3);
            part[0] = scale;
            part[1] = scale * (float)(sum4.s0 + sum4.s1 + sum4.s2 + sum4.s3);
            part += 2;
        }
    }
}
