// out = softmax(q k^T scale + mask) v without the score matrix in memory: a running maximum and sum
// per query, corrected block of keys by block of keys (online softmax: Milakov & Gimelshein 2018;
// FlashAttention: Dao et al. 2022).
//
// Queries lie in the lanes of vectors, so that maxima, sums and corrections are lane-wise:
//
//                 QUERIES                   QUERIES
//      D       +-----------+     Dv      +-----------+    Both products are register tiles of ROWS
//    +-----+   | q_t (D)   |   +-----+   | p (keys)  |    rows by QUERIES columns: keys by queries,
//    | k   |   +-----------+   | v^T |   +-----------+    then output columns by queries. Scalars
//    | row |-->| p = k q_t |   |     |-->| o = v^T p |    of k and v are read where they lie and
//    +-----+   +-----------+   +-----+   +-----------+    broadcast.
//
// Per block of KEY_BLOCK keys:   m' = max(m, max p)    p = e^(p - m')    c = e^(m - m')
//                                l = c l + sum p       o = c o + v^T p   m = m'
// At the end out = o / l. Where every key is masked with -inf the result is NaN, as in the softmax
// of a row of -inf.
// A task is QUERIES queries of one head.
#define LANES $lanes // queries in a vector
#define VECS $vecs // vectors of queries
#define QUERIES (VECS * LANES)
#define ROWS $rows // keys, or output columns, of a register tile
#define KEY_BLOCK $key_block // keys between two corrections, a multiple of ROWS
#define HEAD $head_size // room for D, and for Dv as a multiple of ROWS

typedef $vec vec;

$exp_below

// The transpose of LANES x LANES values. A stage interleaves both halves of the vectors, which moves
// the uppermost bit of an element's row to the lower end of its column, and that of its column to
// the lower end of its row; after all stages both numbers have changed places.
static void transpose(vec* m)
{
    #pragma unroll
    for (int stage = 0; stage < $stages; ++stage) {
        vec t[LANES];
        #pragma unroll
        for (int i = 0; i < LANES / 2; ++i) {
            t[2 * i].even = m[i].lo;
            t[2 * i].odd = m[i + LANES / 2].lo;
            t[2 * i + 1].even = m[i].hi;
            t[2 * i + 1].odd = m[i + LANES / 2].hi;
        }
        #pragma unroll
        for (int i = 0; i < LANES; ++i) m[i] = t[i];
    }
}

$head
$parameters)
{
    vec q_t[HEAD * VECS];
    vec o_t[HEAD * VECS];
    vec p[KEY_BLOCK * VECS];
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int query0 = task % query_blocks * QUERIES;
        const int z1 = task / query_blocks % heads;
        const int z0 = task / query_blocks / heads;
        const int kv = z1 / group;
$batch
        // Queries into lanes, LANES of a head's elements at a time, the rest of them one by one.
        $element* q_lanes = ($element*)q_t;
        for (int lane0 = 0; lane0 < QUERIES; lane0 += LANES) {
            int d = 0;
            for (; d + LANES <= D; d += LANES) {
                vec m[LANES];
                #pragma unroll
                for (int lane = 0; lane < LANES; ++lane) {
                    const int query = query0 + lane0 + lane;
                    const int i = query < Sq ? query : Sq - 1;
                    m[lane] = $load_q_vector * $scale;
                }
                transpose(m);
                #pragma unroll
                for (int n = 0; n < LANES; ++n) q_t[(d + n) * VECS + lane0 / LANES] = m[n];
            }
            for (; d < D; ++d) {
                for (int lane = lane0; lane < lane0 + LANES; ++lane) {
                    const int i = query0 + lane < Sq ? query0 + lane : Sq - 1;
                    q_lanes[d * QUERIES + lane] = $load_q * $scale;
                }
            }
        }
        for (int d = 0; d < HEAD * VECS; ++d) o_t[d] = 0;
        vec maximum[VECS];
        vec total[VECS];
        for (int w = 0; w < VECS; ++w) {
            maximum[w] = -INFINITY;
            total[w] = 0;
        }
        const int seen = $seen;
        for (int key0 = 0; key0 < seen; key0 += KEY_BLOCK) {
            const int keys = key0 + KEY_BLOCK < seen ? KEY_BLOCK : seen - key0;

            // Scores; rows beyond the last key repeat it and are not used.
            for (int j0 = 0; j0 < keys; j0 += ROWS) {
                const __global $k_type* k_rows[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const int j = key0 + (j0 + r < keys ? j0 + r : keys - 1);
                    k_rows[r] = k + k_at + (long)j * k_row;
                    #pragma unroll
                    for (int w = 0; w < VECS; ++w) acc[r][w] = 0;
                }
                for (int d = 0; d < D; ++d) {
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const $element x = $load_k;
                        #pragma unroll
                        for (int w = 0; w < VECS; ++w) acc[r][w] += x * q_t[d * VECS + w];
                    }
                }
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int w = 0; w < VECS; ++w) p[(j0 + r) * VECS + w] = acc[r][w];
                }
            }

            // Masks, the new maximum, exponentials and their sum.
            vec shift[VECS];
            vec sum[VECS];
            vec correction[VECS];
            #pragma unroll
            for (int w = 0; w < VECS; ++w) {
                shift[w] = maximum[w];
                sum[w] = 0;
            }
            for (int n = 0; n < keys; ++n) {
                #pragma unroll
                for (int w = 0; w < VECS; ++w) {
                    vec score = p[n * VECS + w];
$mask
                    p[n * VECS + w] = score;
                    shift[w] = score > shift[w] ? score : shift[w];
                }
            }
            #pragma unroll
            for (int w = 0; w < VECS; ++w) {
                const vec before = maximum[w];
                maximum[w] = shift[w];
                shift[w] = shift[w] == -INFINITY ? (vec)(0) : shift[w];
                correction[w] = exp_below(before - shift[w]);
            }
            for (int n = 0; n < keys; ++n) {
                #pragma unroll
                for (int w = 0; w < VECS; ++w) {
                    const vec e = exp_below(p[n * VECS + w] - shift[w]);
                    p[n * VECS + w] = e;
                    sum[w] += e;
                }
            }
            #pragma unroll
            for (int w = 0; w < VECS; ++w) total[w] = total[w] * correction[w] + sum[w];

            // Outputs; rows beyond Dv repeat the last column and are not used.
            for (int d0 = 0; d0 < Dv; d0 += ROWS) {
                const __global $v_type* v_cols[ROWS];
                vec acc[ROWS][VECS];
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const int d = d0 + r < Dv ? d0 + r : Dv - 1;
                    v_cols[r] = v + $v_start;
                    #pragma unroll
                    for (int w = 0; w < VECS; ++w) {
                        acc[r][w] = o_t[(d0 + r) * VECS + w] * correction[w];
                    }
                }
                for (int n = 0; n < keys; ++n) {
                    #pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const $element x = $load_v;
                        #pragma unroll
                        for (int w = 0; w < VECS; ++w) acc[r][w] += x * p[n * VECS + w];
                    }
                }
                #pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    #pragma unroll
                    for (int w = 0; w < VECS; ++w) o_t[(d0 + r) * VECS + w] = acc[r][w];
                }
            }
        }

        #pragma unroll
        for (int w = 0; w < VECS; ++w) {
$quotients
        }
        const $element* o_lanes = (const $element*)o_t;
        for (int lane0 = 0; lane0 < QUERIES && query0 + lane0 < Sq; lane0 += LANES) {
            const int rows = Sq - query0 - lane0 < LANES ? Sq - query0 - lane0 : LANES;
            int d = 0;
            for (; d + LANES <= Dv; d += LANES) {
                vec m[LANES];
                #pragma unroll
                for (int n = 0; n < LANES; ++n) m[n] = o_t[(d + n) * VECS + lane0 / LANES];
                transpose(m);
                for (int lane = 0; lane < rows; ++lane) {
                    const int i = query0 + lane0 + lane;
                    const long at = $out_at;
                    const vec result = m[lane];
                    $store_vector
                }
            }
            for (; d < Dv; ++d) {
                for (int lane = lane0; lane < lane0 + rows; ++lane) {
                    const int i = query0 + lane;
                    const long at = $out_at;
                    const $element result = o_lanes[d * QUERIES + lane];
                    $store
                }
            }
        }
    }
}
