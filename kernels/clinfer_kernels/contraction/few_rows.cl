// out = end(a b) for few rows: what counts is to read b once, and fast. A work-group makes ROWS x
// COLS results; its work-items share K in SLICES interleaved slices, summed in local memory.
//
//     sum(slice) = sum over k = slice, slice + SLICES, ... of a[i][k] * b[k][j]
//
// `partial` is an argument: a work-group of one item may be called by the player, which gives it
// room, while a variable of local memory would be a hidden argument that it does not know.
//
// A work-item reads 16 bytes of b at once where they lie side by side: COLS_EACH columns of a k, or
// K_EACH values of a column. Neighbours read neighbouring elements.
#define ROWS $rows // of a, at once
#define COL_ITEMS $col_items // work-items along the columns
#define SLICES $slices // and along K
#define COLS_EACH $cols_each // columns of a work-item
#define K_EACH $k_each // values along K that it reads at once
#define COLS (COL_ITEMS * COLS_EACH)
#define WG_SIZE (COL_ITEMS * SLICES)

$head
$parameters)
{
    const int item = get_local_id(0);
    const int col_item = $col_item;
    const int slice = $slice;
    $each_task {
        const int a0 = task % row_tasks * ROWS;
        const int b0 = task / row_tasks % col_tasks * COLS;
$part
$batch
$setup
        #pragma unroll 4
        for (int k = k_begin + slice * K_EACH; k < k_end; k += SLICES * K_EACH) {
            const $piece b_piece = $load_b;
$multiply
        }
$put
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = item; e < ROWS * COLS; e += WG_SIZE) {
            const int i = a0 + e / COLS;
            const int j = b0 + e % COLS;
            if (i >= M || j >= N) continue;
            $acc_type sum = partial[e];
            for (int s = 1; s < SLICES; ++s) sum += partial[s * (ROWS * COLS) + e];
$row
            {
$end
            }
        }
$after
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
