// Work-item g walks the boxes of class g, g + G, g + 2 G ... of all batches, the best first (G: all
// work-items). A box is taken unless it shares more than `overlap` of its union with one taken.

typedef $real real;
typedef struct { real low0, low1, high0, high1; } corners;

static corners box_of(__global const $storage* boxes, int at) {
    const real a = $a, b = $b, c = $c, d = $d;
    corners box;
$corners
    return box;
}

static real share_of(corners p, corners q) {
    const real side0 = fmin(p.high0, q.high0) - fmax(p.low0, q.low0);
    const real side1 = fmin(p.high1, q.high1) - fmax(p.low1, q.low1);
    if (!(side0 > 0 && side1 > 0)) return 0;  // most pairs share nothing
    const real common = side0 * side1;
    const real both = (p.high0 - p.low0) * (p.high1 - p.low1)
        + (q.high0 - q.low0) * (q.high1 - q.low1) - common;
    return both > 0 ? common / both : 0;
}

$head
$parameters)
{
    const real overlap = $overlap;
    const real least = $least;
    for (int line = get_global_id(0); line < lines; line += get_global_size(0)) {
        const int boxes_at = line / kinds * many * 4;
        int count = 0;
        for (int i = 0; i < many && count < most; ++i) {
            const real score = $score;
            if ($limited && !(score > least)) continue;
            const int next = (int)order[line * many + i];
            const corners box = box_of(boxes, boxes_at + next * 4);
            bool is_free = true;
            for (int j = 0; j < count && is_free; ++j) {
                const int other = taken[line * most + j];
                is_free = !(share_of(box_of(boxes, boxes_at + other * 4), box) > overlap);
            }
            if (is_free) taken[line * most + count++] = next;
        }
        for (; count < most; ++count) taken[line * most + count] = -1;
    }
}
