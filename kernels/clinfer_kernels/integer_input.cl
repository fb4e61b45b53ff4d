// dense[row][group][c] = x at any strides, with zeros behind the channels of a group up to whole
// ints. A task is a row of pixels.
$head
$parameters)
{
    for (int row = get_global_id(0); row < rows; row += get_global_size(0)) {
        const int row_at = $row_at;
        const __global uchar* from = (const __global uchar*)x + row_at;
        __global int* to = (__global int*)dense + (long)row * $width * $groups * ($padded / 4);
        for (int i = 0; i < $width; ++i) {
            for (int group = 0; group < $groups; ++group) {
                for (int c = 0; c < $padded; c += 4) {
                    int four = 0;
                    #pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if (c + j >= $channels) continue;
                        const int at = i * $w_step + (group * $channels + c + j) * $c_step;
                        four |= (int)from[at] << 8 * j;
                    }
                    to[(i * $groups + group) * ($padded / 4) + c / 4] = four;
                }
            }
        }
    }
}
