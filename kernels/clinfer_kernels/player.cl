// Runs the launches of a plan one after another, by all threads that come: no queue in between.
//
//     steps   STEP words of 64 bits a launch:
//             0  the code: void f(void** arguments, void* context, size_t x, size_t y, size_t z)
//             1  its arguments: the address of each one's value
//             2  its context: begins with the numbers of groups along x, y, z
//             3  groups along x      4  groups along x and y      5  groups in all
//             6  groups that a thread takes at a time
//     state   lines of LINE counters of 32 bits, so that no two share a cache line:
//             line 0  whether helpers may come in          line 1  helpers that are inside
//             line 2 + 2 i  groups of launch i taken       line 3 + 2 i  groups of it done
//     clock   the processor's time stamps before and after each launch
//
// A thread takes groups of the launch at hand until none is left, then waits until all are done:
// for groups that running threads have taken, never for a thread to come. So the leader alone gets
// to the end, and a helper that comes late finds what is left. The leader lets helpers in and is
// the last to leave: when it has, nobody reads the counters.
#define STEP $step_words
#define LINE $line
#define OPEN 0
#define INSIDE LINE
#define TAKEN(i) ((2 + 2 * (i)) * LINE)
#define DONE(i) ((3 + 2 * (i)) * LINE)
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

static void play(const __global ulong* launch, volatile __global int* taken,
                 volatile __global int* done) {
    const int groups = (int)launch[5];
    const int share = (int)launch[6];
    const uint row = (uint)launch[3];
    const uint plane = (uint)launch[4];
    int finished = 0;
    for (;;) {
        const int begin = __atomic_fetch_add(taken, share, __ATOMIC_ACQUIRE);
        if (begin >= groups) break;
        const int end = begin + share < groups ? begin + share : groups;
        for (int group = begin; group < end; ++group) {
            const uint within = (uint)group % plane;
            call(launch[0], launch[1], launch[2], within % row, within / row, (uint)group / plane);
        }
        finished += end - begin;
    }
    if (finished) __atomic_fetch_add(done, finished, __ATOMIC_RELEASE);
    await(done, groups);
}

$head
const __global ulong* restrict steps, volatile __global int* state, __global ulong* clock,
const int first, const int end, const int leads)
{
    if (!leads) {
        __atomic_fetch_add(state + INSIDE, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(state + OPEN, __ATOMIC_SEQ_CST)) {
            for (int i = first; i < end; ++i) {
                play(steps + i * STEP, state + TAKEN(i), state + DONE(i));
            }
        }
        __atomic_fetch_sub(state + INSIDE, 1, __ATOMIC_SEQ_CST);
        return;
    }
    __atomic_store_n(state + OPEN, 1, __ATOMIC_SEQ_CST);
    for (int i = first; i < end; ++i) {
        clock[2 * i] = __builtin_ia32_rdtsc();
        play(steps + i * STEP, state + TAKEN(i), state + DONE(i));
        clock[2 * i + 1] = __builtin_ia32_rdtsc();
    }
    __atomic_store_n(state + OPEN, 0, __ATOMIC_SEQ_CST);
    await(state + INSIDE, 0);
}
