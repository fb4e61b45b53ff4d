// y[pixel][c] = epilogue(sum over taps t of x[pixel at t][c] * w[t][c]): depthwise, on class "gpu".
//
// A work-item makes WIDTH neighbouring channels of a pixel; neighbours have the next channels. The
// taps are written out: where a pixel's window begins is computed once, and no tap divides.
#define WIDTH $width // channels of a work-item

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int channel = task % col_tasks * WIDTH;
        int flat = task / col_tasks;
        int position = flat;
$position
$begin
$locate
        $vec sum = 0;
$taps
$epilogue
    }
}
