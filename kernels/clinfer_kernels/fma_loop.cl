// Each work-item advances $chains independent chains of multiply and add by `rounds` steps.
$head
__global float* restrict y0, const int rounds)
{
    $vec acc[$chains];
    #pragma unroll
    for (int i = 0; i < $chains; ++i) acc[i] = (float)(i + get_global_id(0));
    for (int n = 0; n < rounds; ++n) {
        #pragma unroll
        for (int i = 0; i < $chains; ++i) acc[i] = acc[i] * 0.5f + 0.25f;
    }
    $vec sum = 0;
    #pragma unroll
    for (int i = 0; i < $chains; ++i) sum += acc[i];
    float total = 0;
    for (int lane = 0; lane < $lanes; ++lane) total += ((const float*)&sum)[lane];
    y0[get_global_id(0)] = total;
}
