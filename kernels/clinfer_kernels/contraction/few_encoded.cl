// out = end(a b) for few rows and b in few bits: what counts is to read the codes once, and fast. A
// work-group makes ROWS x COLS results; its work-items share K in SLICES interleaved slices, summed
// in local memory.
//
//     sum(slice) = sum over its words of (sum over a word of a[i][k] * (code[k][j] - zero)) * scale
//
// A work-item reads 16 bytes of codes at once: EACH values along k of LANES columns. What lies side
// by side in memory are the words along k of those columns, so a group reads COL_ITEMS pieces.
// `partial` is an argument for the player, as in few_rows.
#define ROWS $rows // of a, at once
#define COL_ITEMS $col_items // work-items along the columns
#define SLICES $slices // and along K
#define HELPERS $helpers // work-items that add the slices of a result
#define EACH $each // codes in a word
#define AHEAD $ahead // words of each column whose loads are on their way at once
#define LANES 4 // columns of a work-item
#define COLS (COL_ITEMS * LANES)
#define VECTORS (ROWS * COL_ITEMS) // of results
#define WG_SIZE (COL_ITEMS * SLICES)

$head
$parameters)
{
    const int item = get_local_id(0);
    const int col_item = item % COL_ITEMS;
    const int slice = item / COL_ITEMS;
    $each_task {
        const int a0 = task % row_tasks * ROWS;
        const int b0 = task / row_tasks % col_tasks * COLS;
        const int z = task / row_tasks / col_tasks;
        const int quad = min(b0 / LANES + col_item, b_quads - 1);
        const __global uint* b_words_of = b + quad * b_words;
$batch
$setup
        for (int k = slice * EACH; k < K; k += AHEAD * SLICES * EACH) {
$load
$multiply
        }
$put
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = item; e < VECTORS * HELPERS; e += WG_SIZE) {
            float4 some = partial[e];
            for (int s = e + VECTORS * HELPERS; s < VECTORS * SLICES; s += VECTORS * HELPERS) {
                some += partial[s];
            }
            partial[e] = some;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = item; e < ROWS * COLS; e += WG_SIZE) {
            const int i = a0 + e / COLS;
            const int j = b0 + e % COLS;
            if (i >= M || j >= N) continue;
            const __local float* of_result = (const __local float*)partial + e;
            float sum = of_result[0];
            #pragma unroll
            for (int h = 1; h < HELPERS; ++h) sum += of_result[h * (ROWS * COLS)];
$row
            {
$end
            }
        }
$after
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
