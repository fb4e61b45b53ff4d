// The parts of a query's result, each over keys of its own, become the result: of the highest score
// m_p, the sum of weights l_p and the sums o_p of part p
//
//     m = max m_p    c_p = e^(m_p - m)    out = sum c_p o_p / sum c_p l_p
//
// always in the order of the parts. A work-item makes one vector of a row: row b heads Sq + h Sq + i
// of the parts is query i of head h.
#define HEAD $head_size // elements of a row of a part
#define WIDTH 4
#define DEPTH (HEAD / WIDTH)

typedef $vec vec;

$head
$parameters)
{
    for (int task = get_global_id(0); task < tasks; task += get_global_size(0)) {
        const int d = task % DEPTH * WIDTH;
        const int lanes = Dv - d;
        const int line = task / DEPTH;
        const int i = line % Sq;
        const int z1 = line / Sq % heads;
        const int z0 = line / Sq / heads;
        if (lanes <= 0) continue;
        $element maximum = -INFINITY;
        for (int p = 0; p < parts; ++p) {
            const $element highest = tops[2 * ((long)line * parts + p)];
            maximum = highest > maximum ? highest : maximum;
        }
        const $element shift = maximum == -INFINITY ? 0 : maximum;
        vec sum = 0;
        $element weights = 0;
        for (int p = 0; p < parts; ++p) {
            const long part = (long)line * parts + p;
            const $element scale = exp_$element(tops[2 * part] - shift);
            weights += scale * tops[2 * part + 1];
            sum += scale * *(const __global vec*)(sums + part * HEAD + d);
        }
$out_base
$finish
        const long at = $out_at;
        const vec result = $quotient;
$store
    }
}
