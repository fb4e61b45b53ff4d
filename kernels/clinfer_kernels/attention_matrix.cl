// out = softmax(q k^T scale + mask) v by matrix instructions, a work-group to QUERIES rows of
// queries that share a head of keys and values, which pass through local memory KEYS at a time:
// as attention_gpu.cl, but that both products are those of a matrix unit's waves.
//
//     q_tile [HEAD / 4][QUERIES][4]    k in kv_tile [HEAD / 4][KEYS][4]     score = q_tile k
//     weights [KEYS / 4][QUERIES][4]   v in kv_tile [KEYS / 4][HEAD][4]     o += weights v
//
// 4: what lies side by side, as the unit asks. Weights are in p_tile, or in the registers of the
// work-items that made them; where those are a unit's second operand, both products are turned:
// keys by queries, columns of v by weights. Work-items that share queries exchange their highest
// scores, and sums of weights, through `tree`. Statements on sums are written out: they are
// components of vectors, or names.
#define HEAD $head_size // room for D and Dv
#define KEYS $keys
#define LANES 4
#define DEPTH (HEAD / LANES) // vectors of a row
#define QUERIES $queries
#define WG_SIZE $wg_size
#define SHARERS $sharers // work-items that share queries
#define Q_PITCH (QUERIES + $pad) // of tiles' rows
#define K_PITCH (KEYS + $pad)
#define V_PITCH (HEAD + $pad)

$head
$parameters)
{
    __local $element q_tile[HEAD * Q_PITCH] __attribute__((aligned(16)));
    __local $element kv_tile[$kv_room] __attribute__((aligned(16)));
    __local float entries[KEYS] __attribute__((aligned(16))); // added to scores of a key
$shared
    const int item = get_local_id(0);
    const int turn = 0;
$s_places
$x
    $each_task {
        const int row0 = task % row_blocks * QUERIES;
        const int z = task / row_blocks;
        const int kv = z % kv_heads;
        const int z0 = z / kv_heads;
$bases
        const int last = row0 + QUERIES < rows ? row0 + QUERIES : rows;
        const int stop = $seen;
        for (int e = item; e < QUERIES * DEPTH; e += WG_SIZE) {
            const int row = row0 + e / DEPTH;
            const int d = e % DEPTH * LANES;
            float4 value = 0;
            if (row < rows && d < D) {
$row
                const int lanes = D - d;
$q_base
$load_q
                value = $q_value;
            }
$put_q
        }
$begin_o
$begin_sums
$first_k
        for (int key0 = 0; key0 < stop; key0 += KEYS) {
$put_k
$entries
            barrier(CLK_LOCAL_MEM_FENCE);

$fetch_v
$begin_s
$scores
$masked
            barrier(CLK_LOCAL_MEM_FENCE);

$put_v
$weighed
            barrier(CLK_LOCAL_MEM_FENCE);

$next_k
            {
$o_places
$results
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
$totals
        {
$o_places
$finish
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
