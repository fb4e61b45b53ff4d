// y[..., o, ...] = epilogue(sum over taps t of weight(o, t) * x[..., index(o, t), ...])
//
//     input      0     1     2     3      Position o lies at source(o) in the input; its taps are
//                |     |  ^  |     |      the $taps nearest elements, beyond the ends the last one
//     source(o)           |               there is. Several axes: all combinations ($coordinates).
//
// A task is a piece of one or more lines along the innermost dimension. The taps of the other
// dimensions are the same for a whole line, and for the next one where its position along a dimension
// is; those of the innermost one are the same for all lines.
$contract
#define TAPS $taps // along one axis
#define OUTER $outer // combinations of taps of the outer axes
#define LANES $lanes // elements of a vector
#define PIECE $piece // elements of a line whose taps are kept

typedef $real real;

static int floor_of(real x)
{
    const int i = (int)x;
    return x < i ? i - 1 : i;
}

static int clamp_to(int i, int size)
{
    return i < 0 ? 0 : (i < size ? i : size - 1);
}

// floor(over / under); the quotient in `real` may be one too large or too small.
static int quotient(long over, long under)
{
    int q = floor_of((real)over / (real)under);
    q -= q * under > over;
    q += (q + 1) * under <= over;
    return q;
}

// The indices and weights of position o along an axis.
$places

$head
$parameters)
{
    for (int task = $first; task < $end; task += $stride) {
        const int j0 = task % pieces * piece;
        const int j1 = j0 + piece < inner ? j0 + piece : inner;
        const int line0 = task / pieces * line_block;
        const int line1 = line0 + line_block < lines ? line0 + line_block : lines;
$inner_taps
$kept_taps
        for (int number = line0; number < line1; ++number) {
            int line = number;
$locate
            int at[OUTER];
            real weight[OUTER];
            int count = 1;
            at[0] = $x_at;
            weight[0] = 1;
$outer_taps
            for (int j = j0; j < j1; j += LANES) {
                const int left = j1 - j;
$combine
$finish
            }
        }
    }
}
