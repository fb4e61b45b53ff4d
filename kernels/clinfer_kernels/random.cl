// Random numbers by Philox 4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011. Block b is four words made of the counter
// (b, 0, 0, 0) and the key alone, so work-items need nothing of one another:
//
//   elements 4 b ... 4 b + 3   <-   philox((b, 0, 0, 0), key)
//
// Work-item g makes blocks g, g + G, g + 2 G, ... (G: all work-items). Element = number * scale +
// shift, with (scale, shift) = x1. What is computed are sums and products alone, each rounded for
// itself, so every device gives the same bits.
#pragma OPENCL FP_CONTRACT OFF

static uint4 philox(uint block, uint k0, uint k1) {
    uint4 c = (uint4)(block, 0u, 0u, 0u);
    for (int round = 0; round < 10; ++round) {
        const uint high0 = mul_hi(0xD2511F53u, c.x);
        const uint high1 = mul_hi(0xCD9E8D57u, c.z);
        const uint low0 = 0xD2511F53u * c.x;
        const uint low1 = 0xCD9E8D57u * c.z;
        c = (uint4)(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

$numbers

$head
$parameters)
{
    const int total = count;
    const uint k0 = x0[x0_o];
    const uint k1 = x0[x0_o + 1];
    const float scale = x1[x1_o];
    const float shift = x1[x1_o + 1];
    const int blocks = total / 4 + (total % 4 != 0);
    for (int block = get_global_id(0); block < blocks; block += get_global_size(0)) {
        const float4 made = numbers(philox((uint)block, k0, k1)) * scale + shift;
        const int left = total - 4 * block;
        __global float* to = y0 + y0_o + 4 * block;
        to[0] = made.x;
        if (left > 1) to[1] = made.y;
        if (left > 2) to[2] = made.z;
        if (left > 3) to[3] = made.w;
    }
}
