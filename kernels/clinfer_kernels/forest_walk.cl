// Whether a row goes to the first child of a node.
static bool is_first(int4 node, float value) {
    const float threshold = as_float(node.y);
    return $goes;
}

// The leaf that a row reaches from a node.
static int4 leaf_of(__global const float* row, __global const int* nodes, int at) {
    int4 node = $node;
    while (node.z >= 0) {
        at = node.z + !is_first(node, row[node.x]);
        node = $node;
    }
    return node;
}

// Adds a leaf's votes to a row's scores.
static void count(int4 leaf, __global const int* votes, __global float* scores) {
$votes
}
