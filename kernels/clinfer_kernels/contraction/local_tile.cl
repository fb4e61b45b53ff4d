// out = end(a b): a work-group makes TILE_M x TILE_N results, walking along K in steps.
//
//                      b               A step: pieces of a and b, TILE_M x K_STEP and K_STEP x
//                    +--------------+  TILE_N, lie in local memory as [k][place]. While the
//             K_STEP |    b_tile    |  work-items add the step's products, the pieces of the next
//        a           +--------------+  one are on their way to registers, from where they go to the
//    +--------+      +--------------+  other of two tiles: one barrier a step.
//    |        |      | [][]    [][] |
//    | a_tile |      | [][]    [][] |  A work-item owns ROWS x COLS results in blocks of
//    |        |      |              |  LANES x LANES: block (p, q) is at rows
//    +--------+      +--------------+  LANES (item_row + p WG_ROWS) and columns
//      K_STEP             TILE_N       LANES (item_col + q WG_COLS): neighbours read neighbours.
#define WG_ROWS $wg_rows // work-items along M
#define WG_COLS $wg_cols // work-items along N
#define ROWS $rows // results of a work-item along M
#define COLS $cols // and along N
#define K_STEP $k_step // depth of the tiles in local memory
#define UNROLL $unroll // steps of k that a compiler may mix; more of them need more registers
#define LANES 4 // of a vector
#define TILE_M (WG_ROWS * ROWS)
#define TILE_N (WG_COLS * COLS)
#define WG_SIZE (WG_ROWS * WG_COLS)
#define A_PITCH (TILE_M + $a_pad) // of a tile's rows: vectors stay aligned, columns change banks
#define B_PITCH (TILE_N + $b_pad)

$head
$parameters)
{
    __local $element a_tile[$tiles * K_STEP * A_PITCH] __attribute__((aligned($align)));
    __local $element b_tile[$tiles * K_STEP * B_PITCH] __attribute__((aligned($align)));
$places
    $each_task {
        const int a0 = task % row_tasks * TILE_M;
        const int b0 = task / row_tasks % col_tasks * TILE_N;
$part
$batch
$a_setup
$b_setup
        $a_piece
        $b_piece
$zero
        if (k_begin < k_end) {
$first
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        int turn = 0;
$keep
        for (int k0 = k_begin; k0$ahead < k_end; k0 += K_STEP) {
            const int is_more = $is_more;
            if (is_more) {
$load
            }
$multiply
            turn ^= 1;
            if (is_more) {
$put
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
$last
$again
$results
$after
    }
}
