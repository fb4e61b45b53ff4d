// Work-group g takes the g-th of G shares of the rows, in blocks whose rows and scores stay in the
// nearest cache: all rows of a block go down a tree before they go down the next one. $ways rows
// go side by side, so that their loads are under way together; one that has arrived stays. No step
// is a branch, which data would make hard to foresee.

$walk
$head
$parameters)
{
    const long bunches = rows / $ways + (rows % $ways != 0);
    const int first = (int)(bunches * get_group_id(0) / get_num_groups(0)) * $ways;
    const int last = (int)(bunches * (get_group_id(0) + 1) / get_num_groups(0)) * $ways;
    const int end = min(last, rows);
    for (int begin = first; begin < end; begin += $block) {
        const int stop = min(begin + $block, end);
        for (int i = begin * targets; i < stop * targets; ++i) y[i] = $start;
        for (int tree = 0; tree < trees; ++tree) {
            const int root = roots[tree];
            int n = begin;
            for (; n + $ways <= stop; n += $ways) {
                int places[$ways];
                #pragma unroll
                for (int way = 0; way < $ways; ++way) places[way] = root;
                int arrived = 0;  // negative when all rows are at leaves
                while (arrived >= 0) {
                    arrived = -1;
                    #pragma unroll
                    for (int way = 0; way < $ways; ++way) {
                        const int at = places[way];
                        const int4 node = $node;
                        const float value = x[(n + way) * width + node.x];
                        const int next = node.z + !is_first(node, value);
                        const int stays = node.z >> 31;
                        places[way] = (at & stays) | (next & ~stays);
                        arrived &= node.z;
                    }
                }
                for (int way = 0; way < $ways; ++way) {
                    const int at = places[way];
                    count($node, $votes, y + (n + way) * targets);
                }
            }
            for (; n < stop; ++n) {
                count(leaf_of(x + n * width, nodes, root), $votes, y + n * targets);
            }
        }
        for (int i = begin * targets; i < stop * targets; ++i) y[i] = $end;
    }
}
