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

ENTRY = "play_4"
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

HELPS, BEGINS, LEADS = range(3)
"""What a call of the player is for."""

_SHARES = 8  # shares of a part: the last one to end is little of a launch
_SHARES_ALONE = 64  # of a leader without helpers, who may leave between two of them


def player_text(target: Target) -> str:
    """The OpenCL C text."""
    from clinfer_kernels.common import kernel_head
    from clinfer_kernels.template import fill

    return fill(
        "player",
        target,
        head=kernel_head(ENTRY),
        step_words=STEP_WORDS,
        line=LINE,
        state_lines=STATE_LINES,
        helps=HELPS,
        begins=BEGINS,
    )


def launch_line(launch: int, threads: int) -> int:
    """The index in `state` of a launch's first counter; those before are not the launches'."""
    return (STATE_LINES + launch * (threads + 1)) * LINE


def shares(groups: Any, threads: int) -> Any:
    """How many groups of launches a thread takes at a time, from an array of their numbers."""
    return -(-groups // (threads * _SHARES if threads > 1 else _SHARES_ALONE))
