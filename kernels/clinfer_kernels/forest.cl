// Work-item g takes row g, g + G, ... (G: all work-items) down one tree after the other.

$walk
$head
$parameters)
{
    for (int n = get_global_id(0); n < rows; n += get_global_size(0)) {
        __global float* scores = y + n * targets;
        for (int target = 0; target < targets; ++target) scores[target] = $start;
        for (int tree = 0; tree < trees; ++tree) {
            count(leaf_of(x + n * width, nodes, roots[tree]), $votes, scores);
        }
        for (int target = 0; target < targets; ++target) scores[target] = $end;
    }
}
