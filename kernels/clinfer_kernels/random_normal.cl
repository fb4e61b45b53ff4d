// -2 ln u for u = n / 2^24, 0 < n <= 2^24. u = 2^e (1 + f) with 1 + f between sqrt(1/2) and sqrt(2);
// the polynomial is f's logarithm over f, a minimax fit with a relative error of 3e-8.
static float minus_two_ln(float u) {
    const int bits = as_int(u);
    const int e = (bits - 0x3F3504F3) >> 23;
    const float f = as_float(bits - (e << 23)) - 1.0f;
    float p = 0.08722305f;
    p = p * f - 0.14366819f;
    p = p * f + 0.14952274f;
    p = p * f - 0.16562397f;
    p = p * f + 0.19956833f;
    p = p * f - 0.25002074f;
    p = p * f + 0.33334186f;
    p = p * f - 0.49999988f;
    p = p * f + 1.0f;
    return -2.0f * (p * f + (float)e * 0.69314718f);
}

// The square root by Newton's steps for 1 / sqrt(v); 0 for 0.
static float root(float v) {
    float r = as_float(0x5F3759DF - (as_int(v) >> 1));
    const float half_v = 0.5f * v;
    r = r * (1.5f - half_v * r * r);
    r = r * (1.5f - half_v * r * r);
    r = r * (1.5f - half_v * r * r);
    return v * r;
}

// Cosine and sine of 2 pi w / 2^32: w is cut into quarters of a turn q and an angle of at most an
// eighth, t; minimax fits with relative errors of 3e-8.
static float2 turn(uint w) {
    const uint q = (w + 0x20000000u) >> 30;
    const float t = convert_float((int)(w - (q << 30)) >> 6) * 0x1p-26f;
    const float z = t * t;
    const float s = t * (((-75.393563f * z + 81.592354f) * z - 41.341661f) * z + 6.2831853f);
    const float c = ((-83.552591f * z + 64.920306f) * z - 19.739147f) * z + 1.0f;
    const float2 sides = q & 1u ? (float2)(-s, c) : (float2)(c, s);
    return q & 2u ? -sides : sides;
}

// G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958: two
// words are two numbers.
static float4 numbers(uint4 words) {
    const float a = root(minus_two_ln(convert_float((words.x >> 8) + 1u) * 0x1p-24f));
    const float b = root(minus_two_ln(convert_float((words.z >> 8) + 1u) * 0x1p-24f));
    return (float4)(a * turn(words.y), b * turn(words.w));
}
