// The steps of a loop in one call: instructions of WORDS words, which the leader does one after another.
//
//     numbers  registers of 64 bits. Those that whoever calls has to do with are named by their places:
//              AT the instruction to go on with; WHY it was left; ROW which row of launches wants help,
//              ASKED whether it has been asked for since. Addresses are registers too.
//     row      words: the tables of the launches (`player.cl`), the first launch, the end, threads,
//              whether helpers are let in, how often they have been sent
//
// The last word of an instruction that may find a step to be another than what the instructions were
// made for is the number of that step of the plan: it is left there, and nothing of it is done.
#define WORDS $step_words
#define AT $at
#define WHY $why
#define ROW $row
#define ASKED $asked
#define OVER -1
#define LOOKS -2
#define WANTS_HELP -3
#define ROUND_SLICE 10000000 // of the processor's time stamps: some milliseconds until it is left to look around

static void copy_bytes(ulong to, ulong of, ulong nbytes) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(of), "+c"(nbytes) : : "memory");
}

// An integer in memory; `kind` is its bytes, and 16 where it is unsigned.
static long load_number(ulong address, long kind) {
    switch (kind) {
    case 1: return *(const __global char*)address;
    case 2: return *(const __global short*)address;
    case 4: return *(const __global int*)address;
    case 16 + 1: return *(const __global uchar*)address;
    case 16 + 2: return *(const __global ushort*)address;
    case 16 + 4: return *(const __global uint*)address;
    default: return *(const __global long*)address;
    }
}

// An operation on sizes (`clinfer_kernels.dims`); 0 where the result is no number of 64 bits.
static int compute(long operation, long a, long b, __global long* result) {
    switch (operation) {
    case $add: {
        long sum;
        if (__builtin_add_overflow(a, b, &sum)) return 0;
        *result = sum;
        return 1;
    }
    case $mul: {
        long product;
        if (__builtin_mul_overflow(a, b, &product)) return 0;
        *result = product;
        return 1;
    }
    case $floordiv:
    case $mod: {
        if (b == 0 || b == -1) return 0;
        const long rest = a % b;
        const int is_below = rest && (rest < 0) != (b < 0);
        *result = operation == $mod ? rest + (is_below ? b : 0) : a / b - is_below;
        return 1;
    }
    case $min: *result = a < b ? a : b; return 1;
    case $max: *result = a > b ? a : b; return 1;
    case $join: *result = a == 1 ? b : a; return 1;
    case $at_most: *result = a <= b; return 1;
    case $step: *result = a == 1 ? 0 : b; return 1;
    case $equal: *result = a == b; return 1;
    default: return 0;
    }
}

// Plays a row of launches: 0 where it has ended, else why the instructions are left.
static long play_row(const __global long* row, int is_asked) {
    const __global ulong* steps = (const __global ulong*)row[0];
    volatile __global int* state = (volatile __global int*)row[1];
    const int first = (int)row[3];
    const int end = (int)row[4];
    const int threads = (int)row[5];
    if (!state[LEFT]) {
        if (row[6] && !is_asked && state[PRESENT] < threads - 1 && state[COME] == (int)row[7])
            return WANTS_HELP;
        for (int i = LAUNCH(first, threads); i < LAUNCH(end, threads); i += LINE) state[i] = 0;
        if (row[6]) begin(state, first, end);
    }
    lead(steps, state, (__global ulong*)row[2], first, end, threads);
    return state[LEFT] ? LOOKS : 0;
}

static void go_round(const __global long* instructions, __global long* numbers) {
    const ulong until = __builtin_ia32_rdtsc() + ROUND_SLICE;
    long at = numbers[AT];
    long why = 0;
    while (!why) {
        const __global long* word = instructions + at * WORDS;
        const long step = word[WORDS - 1];
        long next = at + 1;
        switch (word[0]) {
        case $plays:
            why = play_row((const __global long*)word[1], numbers[ASKED] == 1);
            numbers[ROW] = word[2];
            numbers[ASKED] = 0;
            if (why) next = at;
            break;
        case $copies:
            copy_bytes(numbers[word[1]] + numbers[word[2]] * word[3],
                       numbers[word[4]] + numbers[word[5]] * word[6], word[7]);
            break;
        case $exchanges: {
            const long address = numbers[word[1]];
            numbers[word[1]] = numbers[word[2]];
            numbers[word[2]] = address;
            break;
        }
        case $loads:
            numbers[word[1]] = load_number(numbers[word[2]] + word[3], word[4]);
            break;
        case $stores:
            *(__global long*)numbers[word[1]] = numbers[word[2]];
            break;
        case $computes:
            if (!compute(word[1], numbers[word[3]], numbers[word[4]], numbers + word[2])) why = step;
            break;
        case $needs:
            if (!numbers[word[1]]) why = step;
            break;
        case $jumps:
            if (!numbers[word[1]]) next = word[2];
            break;
        case $looks:
            if (__builtin_ia32_rdtsc() > until) why = LOOKS;
            break;
        default:
            why = OVER;
        }
        at = next;
    }
    numbers[AT] = at;
    numbers[WHY] = why;
}