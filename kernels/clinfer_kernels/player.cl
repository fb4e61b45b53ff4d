// Runs the launches of a plan one after another, by all threads that come: no queue in between.
//
//     steps   STEP words of 64 bits a launch:
//             0  the code: void f(void** arguments, void* context, size_t x, size_t y, size_t z)
//             1  its arguments: the address of each one's value
//             2  its context: begins with the numbers of groups along x, y, z
//             3  groups along x      4  groups along x and y      5  groups in all
//             6  groups that a thread takes at a time
//             7  from the arguments of one thread to those of the next, in bytes; 0: they share them
//     state   lines of LINE counters of 32 bits, so that no two share a cache line:
//             line 0  the number of the run that helpers may join, 0: none; its first launch, its end;
//                     whether all are to leave it at once; where the leader goes on (launch + 1), 0: at the
//                     first
//             line 1  helpers that are inside: at a run's launches
//             line 2  helpers that are present: inside, or waiting for a run
//             line 3  how often helpers were sent that have come; the last run's number
//             then for each launch a line per part, groups of it taken, and one for all, groups done
//     crowd   of all players in the process: helpers that were sent, and a line on, that have come
//     clock   the processor's time stamps before and after each launch
//
// A launch's groups are cut into as many parts as there may be threads. A thread takes groups of the
// part with its own number first, so that it finds in its caches what it wrote there for the launch
// before, then of the parts after it. When none is left it waits until all are done: for groups
// that running threads have taken, never for a thread to come. So the leader alone gets
// to the end, and a helper that comes late finds what is left. The leader lets helpers in and is
// the last to leave: when it has, nobody reads the counters of launches. Of a long run it leaves after
// each SLICE, for whoever has called it to look around, and is called again; what is taken and done
// stays in the counters. Helpers stay for LINGER
// after a run, because waking them is a tenth of a small model's time, unless others are to come: the
// driver has a thread for each core only.
#define STEP $step_words
#define LINE $line
#define OPEN 0
#define FIRST 1
#define END 2
#define STOP 3
#define LEFT 4
#define INSIDE LINE
#define PRESENT (2 * LINE)
#define COME (3 * LINE)
#define LAST_RUN (3 * LINE + 1)
#define LAUNCH(i, threads) (($state_lines + (i) * ((threads) + 1)) * LINE)
#define LINGER 2000000 // of the processor's time stamps: somewhat less than a millisecond
#define SLICE 1000000000 // likewise: some tenths of a second
#define NEVER (~0UL)
#define PATIENCE 2000 // looks at a counter before the core is given to a thread that waits for one

// A call by the System V ABI for AMD64, from below the red zone, on an aligned stack. Only integers
// live across it here, so the vector registers that a callee may change need no mention.
static void call(ulong code, ulong arguments, ulong context, ulong x, ulong y, ulong z) {
    __asm__ volatile(
        "movq %%rsp, %%r12\n\t"
        "subq $$128, %%rsp\n\t"
        "andq $$-64, %%rsp\n\t"
        "movq %[z], %%r8\n\t"
        "callq *%%rax\n\t"
        "movq %%r12, %%rsp"
        : "+a"(code), "+D"(arguments), "+S"(context), "+d"(x), "+c"(y)
        : [z] "r"(z)
        : "r8", "r9", "r10", "r11", "r12", "memory", "cc");
}

// Linux's sched_yield.
static void yield(void) {
    ulong number = 24;
    __asm__ volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory", "cc");
}

// Waits until the counter has that value.
static void await(volatile __global int* counter, int value) {
    for (int looks = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) != value; ++looks) {
        if (looks < PATIENCE) __builtin_ia32_pause();
        else yield();
    }
}

// Whether a thread is to leave a launch before its end: the run is stopped, or its time is over.
static int is_over(volatile __global int* all, ulong until) {
    return __atomic_load_n(all + STOP, __ATOMIC_RELAXED) || __builtin_ia32_rdtsc() > until;
}

// Takes part in a launch; 0 where the thread has left it before its end.
static int play(const __global ulong* launch, volatile __global int* all,
                volatile __global int* state, int threads, int self, ulong until) {
    const long groups = (long)launch[5];
    const int share = (int)launch[6];
    const uint row = (uint)launch[3];
    const uint plane = (uint)launch[4];
    const ulong arguments = launch[1] + self * launch[7];
    volatile __global int* done = state + threads * LINE;
    int finished = 0;
    int is_left = 0;
    for (int turn = 0; turn < threads && !is_left; ++turn) {
        const int part = self + turn < threads ? self + turn : self + turn - threads;
        const int begin = (int)(groups * part / threads);
        const int size = (int)(groups * (part + 1) / threads) - begin;
        volatile __global int* taken = state + part * LINE;
        while (__atomic_load_n(taken, __ATOMIC_RELAXED) < size) {
            is_left = is_over(all, until);
            if (is_left) break;
            const int first = __atomic_fetch_add(taken, share, __ATOMIC_ACQUIRE);
            if (first >= size) break;
            const int end = first + share < size ? first + share : size;
            for (int i = first; i < end; ++i) {
                const uint group = (uint)(begin + i);
                const uint within = group % plane;
                call(launch[0], arguments, launch[2], within % row, within / row, group / plane);
            }
            finished += end - first;
        }
    }
    if (finished) __atomic_fetch_add(done, finished, __ATOMIC_RELEASE);
    for (int looks = 0; __atomic_load_n(done, __ATOMIC_ACQUIRE) != (int)groups; ++looks) {
        if (is_left || is_over(all, until)) return 0;
        if (looks < PATIENCE) __builtin_ia32_pause();
        else yield();
    }
    return 1;
}

// Waits for a run that is open and is not `last`; 0 where none comes, or the thread is wanted.
static int next_run(volatile __global int* state, volatile __global int* crowd, int last) {
    const ulong start = __builtin_ia32_rdtsc();
    for (int looks = 0; __builtin_ia32_rdtsc() - start < LINGER; ++looks) {
        const int run = __atomic_load_n(state + OPEN, __ATOMIC_SEQ_CST);
        if (run && run != last) return run;
        if (last && crowd[0] != crowd[LINE]) return 0;
        if (looks < PATIENCE) __builtin_ia32_pause();
        else yield();
    }
    return 0;
}

static void help(const __global ulong* steps, volatile __global int* state,
                 volatile __global int* crowd, int threads, int self) {
    int last = 0;
    __atomic_fetch_add(crowd + LINE, 1, __ATOMIC_SEQ_CST);
    if (self == 1) __atomic_fetch_add(state + COME, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(state + PRESENT, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        int run = next_run(state, crowd, last);
        if (!run) {
            __atomic_fetch_sub(state + PRESENT, 1, __ATOMIC_SEQ_CST);
            // Who opened a run before that has counted on this helper.
            run = __atomic_load_n(state + OPEN, __ATOMIC_SEQ_CST);
            if (!run || run == last) return;
            __atomic_fetch_add(state + PRESENT, 1, __ATOMIC_SEQ_CST);
        }
        __atomic_fetch_add(state + INSIDE, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(state + OPEN, __ATOMIC_SEQ_CST) == run) {
            last = run;
            for (int i = state[FIRST]; i < state[END]; ++i) {
                volatile __global int* counters = state + LAUNCH(i, threads);
                if (!play(steps + i * STEP, state, counters, threads, self, NEVER)) break;
            }
        }
        __atomic_fetch_sub(state + INSIDE, 1, __ATOMIC_SEQ_CST);
    }
}

// Lets helpers in. Afterwards PRESENT tells how many there are.
static void begin(volatile __global int* state, int first, int end) {
    const int run = state[LAST_RUN] == 0x7FFFFFFF ? 1 : state[LAST_RUN] + 1;
    state[LAST_RUN] = run;
    state[FIRST] = first;
    state[END] = end;
    __atomic_store_n(state + OPEN, run, __ATOMIC_SEQ_CST);
}

static void lead(const __global ulong* steps, volatile __global int* state, __global ulong* clock,
                 int first, int end, int threads) {
    const ulong until = __builtin_ia32_rdtsc() + SLICE;
    const int left = state[LEFT];
    state[LEFT] = 0;
    for (int i = left ? left - 1 : first; i < end; ++i) {
        if (i + 1 != left) clock[2 * i] = __builtin_ia32_rdtsc();
        if (!play(steps + i * STEP, state, state + LAUNCH(i, threads), threads, 0, until)) {
            state[LEFT] = i + 1;
            return;
        }
        clock[2 * i + 1] = __builtin_ia32_rdtsc();
    }
    __atomic_store_n(state + OPEN, 0, __ATOMIC_SEQ_CST);
    await(state + INSIDE, 0);
}

$rounds

$head
const __global ulong* restrict steps, volatile __global int* state, __global ulong* clock,
const int first, const int end, const int threads, const int role, const long crowd)
{
    volatile __global int* all = (volatile __global int*)crowd;
    if (role == $helps) help(steps, state, all, threads, 1 + (int)get_group_id(0));
    else if (role == $begins) begin(state, first, end);
    else if (role == $goes_round) go_round((const __global long*)steps, (__global long*)crowd);
    else lead(steps, state, clock, first, end, threads);
}
