// out = softmax(q k^T scale + mask) v, one query to a work-item: for few queries, and for heads of
// any size. One pass over the keys with a running maximum (online softmax: Milakov & Gimelshein
// 2018):
//
//     s = q . k_j scale + mask    m' = max(m, s)    c = e^(m - m')    l = c l + e^(s - m')
//     o = c o + e^(s - m') v_j    at the end out = o / l
//
// A key masked with -inf is skipped; where all are, l = 0 and the result is NaN, as in the softmax
// of a row of -inf. A task is CHUNK output columns of one query; more columns repeat the pass.
#define LANES $lanes // values a vector holds
#define VECS $vecs // vectors of output columns
#define CHUNK (VECS * LANES)

typedef $vec vec;

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int col0 = task % chunks * CHUNK;
        const int i = task / chunks % Sq;
        const int z1 = task / chunks / Sq % heads;
        const int z0 = task / chunks / Sq / heads;
        const int kv = z1 / group;
$batch
        vec o[VECS];
        #pragma unroll
        for (int w = 0; w < VECS; ++w) o[w] = 0;
        $element maximum = -INFINITY;
        $element total = 0;
        const int seen = $seen;
        for (int j = 0; j < seen; ++j) {
            vec products = 0;
            for (int d = 0; d < D; d += LANES) {
                const int lanes = D - d;
$dot
            }
            $element score = ($sum) * $scale;
$mask
            if (score == -INFINITY) continue;
            if (score > maximum) {
                const $element correction = exp_$element(maximum - score);
                maximum = score;
                total *= correction;
                #pragma unroll
                for (int w = 0; w < VECS; ++w) o[w] *= correction;
            }
            const $element e = exp_$element(score - maximum);
            total += e;
            #pragma unroll
            for (int w = 0; w < VECS; ++w) {
                const int d = col0 + w * LANES;
                const int lanes = Dv - d;
                if (lanes <= 0) continue;
$weigh
            }
        }
        #pragma unroll
        for (int w = 0; w < VECS; ++w) {
            const int d = col0 + w * LANES;
            const int lanes = Dv - d;
            if (lanes <= 0) continue;
            const long at = $out_at;
            const vec result = o[w] / total;
$store
        }
    }
}
