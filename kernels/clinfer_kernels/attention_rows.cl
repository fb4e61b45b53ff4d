// out = softmax(q k^T scale + mask) v, one query to a work-item: for few queries, and for heads of
// any size. One pass over the keys, LANES at a time, with a running maximum (online softmax:
// Milakov & Gimelshein 2018):
//
//     s_n = q . k_n scale + mask    m' = max(m, max s)    c = e^(m - m')    e_n = e^(s_n - m')
//     l = c l + sum e_n             o = c o + sum e_n v_n
//
// At the end out = o / l. Where every key is masked with -inf the result is NaN, as in the softmax
// of a row of -inf.
// A task is CHUNK output columns of one query; more columns repeat the pass.
#define LANES $lanes // values a vector holds, and keys of a step
#define VECS $vecs // vectors of output columns
#define CHUNK (VECS * LANES)

typedef $vec vec;

$exp_below

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
        vec total = 0;
        $element maximum = -INFINITY;
        const int seen = $seen;
        for (int key0 = 0; key0 < seen; key0 += LANES) {
            const int keys = key0 + LANES < seen ? LANES : seen - key0;
            vec steps = -INFINITY;
            $element* step = ($element*)&steps;
            $element highest = maximum;
            for (int n = 0; n < keys; ++n) {
                const int j = key0 + n;
                vec products = 0;
                for (int d = 0; d < D; d += LANES) {
                    const int lanes = D - d;
$dot
                }
                $element score = ($sum) * $scale;
$mask
                step[n] = score;
                highest = score > highest ? score : highest;
            }
            const $element shift = highest == -INFINITY ? 0 : highest;
            steps = exp_below(steps - shift);
            if (highest > maximum) {
                const vec correction = exp_below((vec)(maximum - shift));
                total *= correction;
                #pragma unroll
                for (int w = 0; w < VECS; ++w) o[w] *= correction;
                maximum = highest;
            }
            total += steps;
            for (int n = 0; n < keys; ++n) {
                const int j = key0 + n;
                #pragma unroll
                for (int w = 0; w < VECS; ++w) {
                    const int d = col0 + w * LANES;
                    const int lanes = Dv - d;
                    if (lanes <= 0) continue;
$weigh
                }
            }
        }
        const $element weights = $total;
$inverse
        #pragma unroll
        for (int w = 0; w < VECS; ++w) {
            const int d = col0 + w * LANES;
            const int lanes = Dv - d;
            if (lanes <= 0) continue;
            const long at = $out_at;
            const vec result = $quotient;
$store
        }
    }
}
