// The upper 24 bits of each word, as numbers in [0, 1): both steps are exact.
static float4 numbers(uint4 words) {
    return convert_float4(words >> 8) * 0x1p-24f;
}
