// out = epilogue(a b) of 8-bit integers by matrix registers (Intel AMX): 32 x 32 sums of int32.
//
//     t4  a, rows 0 to 15     t6  b, columns 0 to 15       A register holds 16 rows of 64 bytes: of a,
//     t5  a, rows 16 to 31    t7  b, columns 16 to 31      64 neighbours along K; of b, 16 steps of four
//                                                          along K for 16 columns, as a panel has them;
//         t0 += t4 t6     t1 += t4 t7                      of sums, 16.
//         t2 += t5 t6     t3 += t5 t7
//
// Tasks are those of matmul_integer, and so are the panels, with K up to whole registers. Rows of a
// whose bytes end within a register, or that are fewer than 32, are staged, with zeros behind. The
// registers are set up by whoever begins a work-item, and given back at its end.
#define ROWS 32 // rows of a tile
#define VECS 2 // vectors side by side in it
#define LANES 16 // sums a vector holds
#define COLS 32 // columns of a tile, and of a panel
#define DEEP 64 // bytes of a register along K
#define AHEAD (2 * DEEP * COLS) // bytes of b from those that are multiplied to those asked for

typedef int16 vec;

$head
$parameters)
{
    const int depth = (K + DEEP - 1) / DEEP * DEEP;
    const long panel_size = (long)(depth / 4 + 1) * COLS;
    uchar setup[64] __attribute__((aligned(64)));
    for (int i = 0; i < 64; ++i) setup[i] = i == 0 ? 1 : i >= 48 && i < 56 ? 16 : 0;
    for (int i = 16; i < 32; i += 2) setup[i] = DEEP;
    __asm__ volatile("ldtilecfg (%0)" : : "r"(setup) : "memory");
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int row0 = task % row_tasks * row_block;
        const int col0 = task / row_tasks % col_tasks * col_block;
        const int row1 = row0 + row_block < M ? row0 + row_block : M;
        const int col1 = col0 + col_block < N ? col0 + col_block : N;
        const int z = task / row_tasks / col_tasks;
$batch
        for (int row = row0; row < row1; row += ROWS) {
            const __global char* block = (const __global char*)a + a_at + (long)row * a_row;
            ulong from = (ulong)block;
            long a_step = a_row;
            if (M - row < ROWS || K != depth) {
                const int held = M - row < ROWS ? M - row : ROWS;
                for (int r = 0; r < held; ++r) {
                    __local char* to = staged + r * depth;
                    const __global char* source = block + (long)r * a_row;
                    int k = 0;
                    for (; k + 64 <= K; k += 64) bytes64_copy(source + k, to + k);
                    for (; k < K; ++k) to[k] = source[k];
                    for (; k < depth; ++k) to[k] = 0;
                }
                from = (ulong)staged;
                a_step = depth;
            }
            for (int col = col0; col < col1; col += COLS) {
                const __global int* panel = b + b_at + col / COLS * panel_size;
                vec tile[ROWS * VECS] __attribute__((aligned(64)));
                __asm__ volatile(
                    "tileloadd (%0,%2,1), %%tmm0\n\t"
                    "tileloadd (%1,%2,1), %%tmm1\n\t"
                    "tileloadd (%0,%2,1), %%tmm2\n\t"
                    "tileloadd (%1,%2,1), %%tmm3"
                    : : "r"(panel), "r"(panel + LANES), "r"(0L) : "memory");
                ulong at = from;
                ulong next = (ulong)(panel + COLS);
                for (int k = 0; k < depth; k += DEEP) {
                    #pragma unroll
                    for (int i = 0; i < DEEP * COLS; i += 64) {
                        const __global char* ahead = (const __global char*)next + AHEAD + i;
                        __asm__ volatile("prefetcht0 %0" : : "m"(*ahead));
                    }
                    __asm__ volatile(
                        "tileloadd (%0,%4,1), %%tmm4\n\t"
                        "tileloadd (%2,%5,1), %%tmm6\n\t"
                        "$dot %%tmm6, %%tmm4, %%tmm0\n\t"
                        "tileloadd (%3,%5,1), %%tmm7\n\t"
                        "$dot %%tmm7, %%tmm4, %%tmm1\n\t"
                        "tileloadd (%1,%4,1), %%tmm5\n\t"
                        "$dot %%tmm6, %%tmm5, %%tmm2\n\t"
                        "$dot %%tmm7, %%tmm5, %%tmm3"
                        : : "r"(at), "r"(at + 16 * a_step), "r"(next), "r"(next + 64),
                        "r"(a_step), "r"(4L * COLS) : "memory");
                    at += DEEP;
                    next += DEEP * COLS;
                }
                __asm__ volatile(
                    "tilestored %%tmm0, (%0,%4,1)\n\t"
                    "tilestored %%tmm1, (%1,%4,1)\n\t"
                    "tilestored %%tmm2, (%2,%4,1)\n\t"
                    "tilestored %%tmm3, (%3,%4,1)"
                    : : "r"(tile), "r"(tile + 1), "r"(tile + 16 * VECS), "r"(tile + 16 * VECS + 1),
                    "r"(64L * VECS) : "memory");
$whole
                const int stored = (row + ROWS < M ? ROWS : M - row) * VECS;
                #pragma unroll 1
                for (int t = 0; t < stored; ++t) {
                    const int i = row + t / VECS;
                    const int j = col + t % VECS * LANES;
                    const int lanes = N - j;
                    if (lanes <= 0) continue;
                    const vec sum = tile[t];
$epilogue
                }
            }
        }
    }
    __asm__ volatile("tilerelease");
}
