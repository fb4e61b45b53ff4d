// y[t] = cell(x[t] + y[t - 1] @ w), step by step; a work-group has one sequence in one direction.
//
//     w of a direction     blocks of UNIT units: [block][k][gate][unit of the block]
//     sums of a block      $gates gates x VECS vectors, over all k of the step before
//
// The state of the step before is read from the output, or from h0 in the first step. What a cell
// needs besides, s (a cell state, which every work-item keeps for its own units), is the output c.
#define VECS $vecs
#define LANES $lanes
#define LOCAL $local
#define GATES $gates
#define UNIT (VECS * LANES * LOCAL) // units of a block

typedef $vec vec;
typedef $real real;

$head
$parameters)
{
    const int lane = $lane;
    const int direction = get_group_id(0) / batch;
    const int row = get_group_id(0) % batch;
    const int is_reversed = direction >= reversed_from;
    for (int step = 0; step < steps; ++step) {
        const int t = is_reversed ? steps - 1 - step : step;
        const int before = is_reversed ? t + 1 : t - 1;
        const int x_at = x_o + t * x_s0 + row * x_s1 + direction * GATES * units;
        const int y_at = y_o + direction * y_s1 + row * y_s2;
        const int h_at = h_o + direction * h_s0 + row * h_s1;
        __global const real* prev = step ? y + y_at + before * y_s0 : h + h_at;
        for (int block = 0; block < blocks; ++block) {
            const int first = block * UNIT + lane * VECS * LANES;
            if (first >= units) break;
            __global const real* next = w + (direction * blocks + block) * units * GATES * UNIT
                + lane * VECS * LANES;
            vec sum[VECS][GATES];
            #pragma unroll
            for (int v = 0; v < VECS; ++v) {
                const int j = first + v * LANES;
                const int left = units - j;
$start
            }
            for (int k = 0; k < units; ++k) {
                const real state = prev[k];
                #pragma unroll
                for (int g = 0; g < GATES; ++g) {
                    #pragma unroll
                    for (int v = 0; v < VECS; ++v) {
                        sum[v][g] += state * $load_w;
                    }
                }
                next += GATES * UNIT;
            }
            #pragma unroll
            for (int v = 0; v < VECS; ++v) {
                const int j = first + v * LANES;
                const int left = units - j;
$cell
            }
        }
$together
    }
}
