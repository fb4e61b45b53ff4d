// A work-item owns $width neighbouring lines and adds their elements up in order, last one first
// where reversed. An exclusive scan stores the total before it takes an element in.
$head
$parameters)
{
    const int lines = $lines;
    for (int line = get_global_id(0); line < lines; line += get_global_size(0)) {
        int flat = line;
$indices
$bases
$body
    }
}
