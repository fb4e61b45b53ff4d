// A work-item owns whole lines. It keeps the best k elements so far in the outputs as a heap whose
// root is the worst of them (node e has the children 2 e + 1 and 2 e + 2), so that an element is
// compared with the root alone, and sorts the heap at the end by taking roots out from behind.
// Of equal elements the one with the lower index is better; NaN is larger than any number. Lines that are contiguous are looked at
// $width elements at a time: where none is better than the root, none goes into the heap.

// Whether element a at index i is better than b at index j.
static bool beats($type a, long i, $type b, long j) {
    return a $better b || (a == b && i < j) || $nan;
}

// Puts element v of index r at node e of a heap of `size` nodes and lets it sink: while a child is
// worse than it, the worse child moves up.
static void sink(__global $storage* values, int value_step, __global long* places, int place_step,
                 int size, int e, $type v, long r) {
    while (2 * e + 1 < size) {
        int child = 2 * e + 1;
        $type worse = $child;
        if (child + 1 < size) {
            const $type other = $sibling;
            if (beats(worse, places[child * place_step], other, places[(child + 1) * place_step])) {
                worse = other;
                ++child;
            }
        }
        const long place = places[child * place_step];
        if (!beats(v, r, worse, place)) {
            break;
        }
        $raise_
        places[e * place_step] = place;
        e = child;
    }
    $put
    places[e * place_step] = r;
}

$head
$parameters)
{
    const int lines = $lines;
    const int k = min(best, m0);
    for (int line = get_global_id(0); line < lines && k > 0; line += get_global_size(0)) {
        int flat = line;
$indices
$bases
        __global $storage* values = y0 + y0_at;
        __global long* places = y1 + y1_at;
        for (int r = 0; r < k; ++r) {
            const $type v = $element;
            $append
            places[r * y1_t0] = r;
        }
        for (int e = k / 2 - 1; e >= 0; --e) {
            const $type v = $node;
            sink(values, y0_t0, places, y1_t0, k, e, v, places[e * y1_t0]);
        }
        for (int r = k; r < m0;) {
            const int end = min(r + $width, m0);
$skip
            for (; r < end; ++r) {
                const $type v = $element;
                const $type worst = $root;
                if (beats(v, r, worst, places[0])) {
                    sink(values, y0_t0, places, y1_t0, k, 0, v, r);
                }
            }
        }
        for (int e = k - 1; e > 0; --e) {
            const $type v = $node;
            const long place = places[e * y1_t0];
            const $type worst = $root;
            const long worst_place = places[0];
            sink(values, y0_t0, places, y1_t0, e, 0, v, place);
            $behind
            places[e * y1_t0] = worst_place;
        }
    }
}
