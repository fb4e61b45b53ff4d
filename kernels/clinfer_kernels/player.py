"""The player: a program that runs the launches of a plan, for drivers whose machine code we hold.

A launch through a queue costs a CPU driver tens of microseconds: threads sleep between dependent
kernels and are woken for each. The player is one kernel, of which each thread runs one work-group
that goes through all launches; `player.cl` describes its tables. The threads deal groups out to
themselves and wait for each other at counters in memory, as runtimes with a thread pool of their
own do (OpenMP's dynamic schedule).

It calls kernels at their addresses, which OpenCL C cannot say, so its text has assembly for x86-64
in it. Kernels it can call have one work-item a group, and local memory as arguments only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinfer_kernels.spec import Target

ENTRY = "play_5"
"""The kernel's name; the number changes with the tables."""

STEP_WORDS = 8
"""64-bit words of a launch in the table of steps."""

LINE = 32
"""32-bit counters from one that is in use to the next: two cache lines."""

STATE_LINES = 4
"""Lines of counters before those of launches; the next names are indices of counters: the run that
helpers may join, whether all are to leave it, the launch that the leader has left before its end
(its number + 1), helpers at launches, helpers that are there, how often some sent have come."""

OPEN = 0
STOP = 3
LEFT = 4
INSIDE = LINE
PRESENT = 2 * LINE
COME = 3 * LINE

CROWD_LINES = 2
"""Lines of counters of all players in a process: helpers sent, helpers come."""

HELPS, BEGINS, LEADS, GOES_ROUND = range(4)
"""What a call of the player is for."""

ENDS, PLAYS, COPIES, EXCHANGES, LOADS, STORES, COMPUTES, NEEDS, JUMPS, LOOKS = range(10)
"""The instructions of a loop's steps (`player_rounds.cl`)."""

AT, WHY, ROW, ASKED, NOTHING, ROUND, ROUND_FROM_LAST, STOP_ROUND, GOES_ON, SCRATCH = range(10)
"""Registers that the instructions of all loops have in common. NOTHING holds 0."""

IS_OVER, IS_LOOKING, WANTS_HELP = -1, -2, -3
"""Why instructions are left; others are numbers of steps of the plan."""

COMPUTATIONS = ("add", "mul", "floordiv", "mod", "min", "max", "join", "at most", "step", "equal")
"""What COMPUTES does, by its first word: mostly `clinfer_kernels.dims.OPERATIONS`."""

UNSIGNED = 16
"""Added to an integer's bytes for LOADS."""

_SHARES = 8  # shares of a part: the last one to end is little of a launch
_SHARES_ALONE = 64  # of a leader without helpers, who may leave between two of them


def player_text(target: Target) -> str:
    """The OpenCL C text."""
    from clinfer_kernels.common import kernel_head
    from clinfer_kernels.template import fill, template

    operations = {name.replace(" ", "_"): n for n, name in enumerate(COMPUTATIONS)}
    rounds = template(
        "player_rounds",
        **operations,
        step_words=STEP_WORDS,
        at=AT,
        why=WHY,
        row=ROW,
        asked=ASKED,
        plays=PLAYS,
        copies=COPIES,
        exchanges=EXCHANGES,
        loads=LOADS,
        stores=STORES,
        computes=COMPUTES,
        needs=NEEDS,
        jumps=JUMPS,
        looks=LOOKS,
    )
    return fill(
        "player",
        target,
        head=kernel_head(ENTRY),
        step_words=STEP_WORDS,
        line=LINE,
        state_lines=STATE_LINES,
        helps=HELPS,
        begins=BEGINS,
        goes_round=GOES_ROUND,
        rounds=rounds.rstrip(),
    )


def launch_line(launch: int, threads: int) -> int:
    """The index in `state` of a launch's first counter; those before are not the launches'."""
    return (STATE_LINES + launch * (threads + 1)) * LINE


def shares(groups: Any, threads: int) -> Any:
    """How many groups of launches a thread takes at a time, from an array of their numbers."""
    return -(-groups // (threads * _SHARES if threads > 1 else _SHARES_ALONE))
