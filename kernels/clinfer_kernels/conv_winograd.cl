// Winograd's minimal filtering F(OUT x OUT, 3 x 3): a tile of OUT x OUT outputs from SIDE x SIDE
// inputs with one multiplication per input instead of 9 per output (Lavin & Gray, "Fast Algorithms
// for Convolutional Neural Networks", 2016):
//
//     y = A' [ sum over c of (G w G') * (B' x B) ] A        * is by element, ' the transpose
//
//     x          SIDE                 v [point][tile][c]            m [point][tile][COLS]
//     +---+---+---+---+               one plane for each            a product of matrices for
//     |   |   |tile   |  B' x B       of the SIDE x SIDE    v w     each point         A' m A    y
//     +---+---+   |   |  ------->     points                --->                       ----->
//
// A task is a block of tiles by a block of panels of COLS filters. Its transformed inputs v and
// products m lie in private or local memory. Missing tiles of the last block repeat the first one.
#define OUT $out // outputs of a tile along an axis
#define SIDE (OUT + 2) // inputs of a tile along an axis
#define POINTS (SIDE * SIDE)
#define TILES $tiles // tiles of a register tile
#define VECS $vecs // vectors of filters side by side in it
#define LANES $lanes // values a vector holds
#define COLS (VECS * LANES) // filters of a register tile, and of a panel

typedef $vec vec;

// B' x: SIDE inputs along an axis to SIDE points.
static void transform_input(const vec* x, vec* to)
{
$transform_input
}

// A' m: SIDE points along an axis to OUT outputs.
static void transform_output(const vec* m, vec* to)
{
$transform_output
}

$head
$parameters)
{
    const __global float* zeros = w + zeros_at;
$room
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int tile0 = task % tile_tasks * tile_block;
        const int tile1 = tile0 + tile_block < tiles ? tile0 + tile_block : tiles;
        const int panel0 = task / tile_tasks * panel_block;
        const int panel1 = panel0 + panel_block < panels ? panel0 + panel_block : panels;
        for (int t = 0; t < TILES; ++t) {
            const int tile = tile0 + t < tile1 ? tile0 + t : tile0;
            const int first2 = tile % tiles2 * OUT + origin2;
            const int first1 = tile / tiles2 % tiles1 * OUT + origin1;
            const int at = x_o + tile / tiles2 / tiles1 * x_s0 + first1 * x_s1 + first2 * x_s2;
            int inside1 = 0;
            int inside2 = 0;
            #pragma unroll
            for (int i = 0; i < SIDE; ++i) {
                inside1 |= ((uint)(first1 + i) < (uint)size1) << i;
                inside2 |= ((uint)(first2 + i) < (uint)size2) << i;
            }
            for (int c = 0; c < C; c += LANES) {
                vec lines[SIDE][SIDE];
                #pragma unroll
                for (int i = 0; i < SIDE; ++i) {
                    vec line[SIDE];
                    #pragma unroll
                    for (int j = 0; j < SIDE; ++j) {
                        const int is_inside = (inside1 >> i) & (inside2 >> j) & 1;
                        const __global float* from = x + (at + i * x_s1 + j * x_s2);
                        from = is_inside ? from : zeros;
                        line[j] = $load_x;
                    }
                    transform_input(line, lines[i]);
                }
                #pragma unroll
                for (int j = 0; j < SIDE; ++j) {
                    vec line[SIDE];
                    vec points[SIDE];
                    #pragma unroll
                    for (int i = 0; i < SIDE; ++i) line[i] = lines[i][j];
                    transform_input(line, points);
                    #pragma unroll
                    for (int i = 0; i < SIDE; ++i) {
                        *(${space}vec*)(v + ((i * SIDE + j) * TILES + t) * C + c) = points[i];
                    }
                }
            }
        }
        for (int panel = panel0; panel < panel1; ++panel) {
            const __global float* next_w = w + (long)panel * POINTS * C * COLS;
            for (int p = 0; p < POINTS; ++p) {
                const ${space}float* from = v + p * TILES * C;
                vec acc[TILES][VECS];
                #pragma unroll
                for (int t = 0; t < TILES; ++t) {
                    #pragma unroll
                    for (int s = 0; s < VECS; ++s) acc[t][s] = 0;
                }
                for (int c = 0; c < C; ++c) {
                    vec y[VECS];
                    #pragma unroll
                    for (int s = 0; s < VECS; ++s) y[s] = $load_w;
                    #pragma unroll
                    for (int t = 0; t < TILES; ++t) {
                        #pragma unroll
                        for (int s = 0; s < VECS; ++s) acc[t][s] += from[t * C + c] * y[s];
                    }
                    next_w += COLS;
                }
                #pragma unroll
                for (int t = 0; t < TILES; ++t) {
                    #pragma unroll
                    for (int s = 0; s < VECS; ++s) m[(p * TILES + t) * VECS + s] = acc[t][s];
                }
            }
            for (int tile = tile0; tile < tile1; ++tile) {
                const int o2 = tile % tiles2 * OUT;
                const int o1 = tile / tiles2 % tiles1 * OUT;
                const int o0 = tile / tiles2 / tiles1;
                #pragma unroll 1
                for (int s = 0; s < VECS; ++s) {
                    const int channel = panel * COLS + s * LANES;
                    const int lanes = M - channel;
                    if (lanes <= 0) continue;
                    vec lines[SIDE][OUT];
                    vec made[OUT][OUT];
                    #pragma unroll
                    for (int i = 0; i < SIDE; ++i) {
                        vec line[SIDE];
                        #pragma unroll
                        for (int j = 0; j < SIDE; ++j) {
                            line[j] = m[((i * SIDE + j) * TILES + tile - tile0) * VECS + s];
                        }
                        transform_output(line, lines[i]);
                    }
                    #pragma unroll
                    for (int j = 0; j < OUT; ++j) {
                        vec line[SIDE];
                        vec column[OUT];
                        #pragma unroll
                        for (int i = 0; i < SIDE; ++i) line[i] = lines[i][j];
                        transform_output(line, column);
                        #pragma unroll
                        for (int i = 0; i < OUT; ++i) made[i][j] = column[i];
                    }
                    #pragma unroll 1
                    for (int o = 0; o < OUT * OUT; ++o) {
                        const int row = o1 + o / OUT;
                        const int place = o2 + o % OUT;
                        if (row >= out1 || place >= out2) continue;
                        int flat = (o0 * out1 + row) * out2 + place;
                        const vec sum = made[o / OUT][o % OUT];
$locate
$epilogue
                    }
                }
            }
        }
    }
}
