"""From a kernel's machine code to a predicted time of its launches.

A model, not a simulation: instructions issue in turn, each pipe has a rate, and loads that wait for
each other cost a latency that only other waves of the unit hide. Trust ratios, and absolute times
to a factor of two, until tools/gpu_first_run.py has measured (`kernel_bars.py --measured`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Any

from kernel_gpus import Gpu
from kernel_isa import Kinds, Listing, Loop, listing_of
from kernel_listings import Code

_TERMS = (("_3xtf32_", 3), ("_bf16x3_", 6))  # instructions for one multiply-add
_START = 2000  # clocks: a launch's first waves, and its last
_FREE = frozenset({"wait", "scalar", "control"})
_VECTOR = frozenset({"fma", "fma2", "float", "half", "int"})  # what AMD's SIMDs issue
_LOADS_IN_FLIGHT = 700e-9  # seconds that a load from memory takes when many are in flight
# (rows x columns x depth as the instruction spells it, operands) of matrix instructions.
_SHAPES = (
    (re.compile(r"^HMMA\.16(?:8)(4|8)\.\S*TF32"), "tf32", lambda n: 16 * 8 * int(n)),
    (re.compile(r"^HMMA\.168(8|16)\."), "half", lambda n: 16 * 8 * int(n)),
    (re.compile(r"^IMMA\.168(16|32)\."), "int8", lambda n: 16 * 8 * int(n)),
    (re.compile(r"^v_s?mfma_f32_(\d+x\d+x\d+)\w*_?f32\b"), "f32", lambda n: _product(n)),
    (re.compile(r"^v_s?mfma_f32_(\d+x\d+x\d+)\w*(?:f16|bf16)"), "half", lambda n: _product(n)),
    (re.compile(r"^v_s?mfma_i32_(\d+x\d+x\d+)"), "int8", lambda n: _product(n)),
    (re.compile(r"^v_wmma_f(?:32|16)_(\d+x\d+x\d+)"), "half", lambda n: _product(n)),
    (re.compile(r"^v_wmma_i32_(\d+x\d+x\d+)"), "int8", lambda n: _product(n)),
    (re.compile(r"^dpas\.\d+(x\d+ +\(\d+)\|.*:(?:hf|bf)"), "half", lambda n: 16 * _repeats(n)),
    (re.compile(r"^dpas\.\d+(x\d+ +\(\d+)\|"), "int8", lambda n: 32 * _repeats(n)),
)


def _repeats(text: str) -> int:
    """Rows by lanes of 'x8 (16'."""
    rows, lanes = re.findall(r"\d+", text)
    return int(rows) * int(lanes)


def _product(text: str) -> int:
    m, n, k = map(int, text.split("x"))
    return m * n * k


@dataclass(frozen=True)
class Analysis:
    """A kernel's hot loop, and the loop around it that brings tiles.

    `hot`, `home`: their own instructions by kind; the same where there is no loop inside the one
    that loads. `copies`: (instructions, trips) of other loops inside home. `adds`: multiply-adds of
    a wave in one turn of hot, `matrix` of them by matrix instructions, by operand. `trips`: turns
    of hot in one of home. `share`: of multiply-adds and matrix instructions in hot. `bound`:
    multiply-adds of hot over what the unit's float32 lanes could do in its clocks. `overlapped`:
    loads of the next tile are in flight while this one is multiplied.
    """

    hot: Kinds
    home: Kinds
    copies: tuple[tuple[Kinds, int], ...]
    adds: float
    matrix: dict[str, int]
    trips: int
    share: float
    bound: float
    overlapped: bool
    instructions: int
    registers: int | None
    local: int
    spilled: int

    @property
    def local_width(self) -> int:
        """Bits of the widest load from local memory in the hot loop; 0 for none."""
        return _widest(self.hot, "ldl")

    @property
    def global_width(self) -> int:
        """Bits of the widest load from global memory in the loops; 0 for none."""
        return max(_widest(k, "ldg") for k in (self.hot, self.home, *(c for c, _ in self.copies)))


def analysed(code: Code, gpu: Gpu, items: int, entry: str = "") -> Analysis:
    """What a kernel's listing says; `items` are the work-items of a group."""
    listing = listing_of(code.listing, gpu.vendor)
    hot = max(listing.loops, key=lambda loop: _weight(listing, loop), default=None)
    whole = Loop(0, len(listing.lines) - 1, None)
    if hot is None:
        hot = whole
    around = [loop for loop in listing.loops if loop.holds(hot)]
    own = listing.own(hot)
    home = hot
    if around and not _loads(own):
        home = min(around, key=lambda loop: loop.last - loop.first)
    copies = []
    for loop in listing.loops:
        if home.holds(loop) and loop != hot and _loads(listing.own(loop)):
            kinds = listing.own(loop)
            copies.append((kinds, loop.trips or _turns(code.local, items, kinds)))
    if len(copies) > 1:
        copies = [(kinds, max(1, ceil(trips / len(copies)))) for kinds, trips in copies]
    matrix = _matrix(listing, hot)
    terms = next((n for name, n in _TERMS if name in entry), 1)
    adds = (own["fma"] + 2 * own["fma2"]) * gpu.wave + sum(matrix.values()) / terms
    multiplying = own["fma"] + own["fma2"] + own["mma"]
    spilled = code.spilled or listing.kinds(0, whole.last)["spill"]
    return Analysis(
        hot=own,
        home=own if home == hot else listing.own(home),
        copies=tuple(copies),
        adds=adds,
        matrix=matrix,
        trips=1 if home == hot else (hot.trips or 1),
        share=multiplying / max(1, own.total()),
        bound=adds / gpu.lanes / clocks(gpu, own, matrix),
        overlapped=_overlapped(listing, home, hot),
        instructions=listing.instructions,
        registers=code.registers,
        local=code.local,
        spilled=spilled,
    )


def clocks(gpu: Gpu, kinds: Kinds, matrix: dict[str, int] | None = None) -> float:
    """Of a unit, for one wave through these instructions: the busiest pipe's."""
    adds = kinds["fma"] + 2 * kinds["fma2"]
    if gpu.vendor == "amd":
        issued = sum(count for kind, count in kinds.items() if kind in _VECTOR)
    elif gpu.vendor == "intel":
        issued = sum(count for kind, count in kinds.items() if kind not in _FREE)
    else:
        issued = kinds.total()
    local = sum(
        count * gpu.wave * _bits(kind) / 8 * (1.0 if kinds["mma"] else _distinct(kind))
        for kind, count in kinds.items()
        if kind.startswith(("ldl", "stl"))
    )
    units = sum(adds / gpu.matrix.get(kind, gpu.lanes) for kind, adds in (matrix or {}).items())
    pipes = (issued / gpu.issues, adds * gpu.wave / gpu.lanes, local / gpu.local_bytes, units)
    return max(*pipes, 1e-9)


def microseconds(gpu: Gpu, launch: Any, kernel: Analysis) -> float:
    """Of a launch on the device; see `kernel_models.Step` for what a launch is."""
    memory = launch.nbytes / (1e3 * gpu.memory)
    if launch.flops and kernel.adds:
        return max(memory, _multiplying(gpu, launch, kernel))
    return memory_bound(gpu, launch, kernel)


def memory_bound(gpu: Gpu, launch: Any, kernel: Analysis) -> float:
    """Bytes over the bandwidth that the loads in flight allow."""
    loaded = sum(_bits(kind) / 8 * n for kind, n in kernel.hot.items() if kind.startswith("ldg"))
    each = min(max(loaded, 4), 64)
    flying = min(launch.groups * launch.items, gpu.units * gpu.items) * each
    level = gpu.memory if launch.nbytes > 30e6 else gpu.cache
    rate = min(1e3 * level, flying / (1e6 * _LOADS_IN_FLIGHT))
    return launch.nbytes / rate + _START / (1e3 * gpu.clock)


def _multiplying(gpu: Gpu, launch: Any, kernel: Analysis) -> float:
    waves = ceil(launch.items / gpu.wave)
    turns = launch.flops / 2 / (launch.groups * waves * kernel.adds)  # of hot, by a wave
    rounds = max(1.0, turns / kernel.trips)  # of home
    busy = kernel.trips * clocks(gpu, kernel.hot, kernel.matrix)
    waits = 0
    if kernel.home is not kernel.hot:
        busy += clocks(gpu, kernel.home)
    for kinds, trips in kernel.copies:
        busy += trips * clocks(gpu, kinds)
        waits += trips
    if _loads(kernel.home):
        waits += 1
    stall = waits * gpu.latency
    if kernel.overlapped:
        stall = max(0.0, stall - waves * busy)
    each = ceil(launch.groups / gpu.units)
    active = min(each, resident(gpu, kernel, launch.items))
    # Groups that a unit holds at once take turns; the last of them may be fewer.
    whole, rest = divmod(each, active)
    sets = [whole * max(active * waves * busy, waves * busy + stall)]
    sets += [max(rest * waves * busy, waves * busy + stall)] if rest else []
    work = rounds * sum(sets) + _START
    loaded = sum(
        _bits(kind) / 8 * n * trips
        for kinds, trips in ((kernel.home, 1), *kernel.copies)
        for kind, n in kinds.items()
        if kind.startswith("ldg")
    )
    traffic = launch.groups * launch.items * rounds * loaded / (1e3 * gpu.cache)
    return max(work / (1e3 * gpu.clock), traffic)


def resident(gpu: Gpu, kernel: Analysis, items: int) -> int:
    """Work-groups that a unit holds at once."""
    waves = ceil(items / gpu.wave)
    limits = [gpu.items // max(items, 1), 32]
    if kernel.local:
        limits.append(gpu.local // kernel.local)
    if gpu.registers and kernel.registers:
        each = ceil(max(kernel.registers, 16) / 8) * 8
        limits.append(gpu.registers // (each * waves * gpu.wave))
    return max(1, min(limits))


# -- reading loops ---------------------------------------------------------------------------------


def _weight(listing: Listing, loop: Loop) -> tuple[float, int, int]:
    """A loop inside others counts more: it runs more often."""
    own = listing.own(loop)
    adds = 64 * own["mma"] + own["fma"] + 2 * own["fma2"] + own["half"]
    return adds * 16.0 ** min(listing.depth(loop), 3), own["float"], _loads(own)


def _matrix(listing: Listing, loop: Loop) -> dict[str, int]:
    """Multiply-adds of a wave by matrix instructions in a loop's own body, by kind of operand."""
    found: dict[str, int] = {}
    inner = [other for other in listing.loops if loop.holds(other)]
    for number in range(loop.first, loop.last + 1):
        text = listing.lines[number].text
        if not text or any(other.first <= number <= other.last for other in inner):
            continue
        for pattern, operand, size in _SHAPES:
            shape = pattern.match(text)
            if shape:
                found[operand] = found.get(operand, 0) + size(shape[1])
                break
    return found


def _overlapped(listing: Listing, home: Loop, hot: Loop) -> bool:
    """Whether most multiply-adds stand between home's own loads from global memory and the next
    store of local memory: the loaded values wait in registers meanwhile.

    A loop of its own that copies waits for each of its loads.
    """
    copies = [loop for loop in listing.loops if home.holds(loop) and loop != hot]
    flying, between, adds, through_local = False, 0, 0, False
    for number in range(home.first, home.last + 1):
        text = listing.lines[number].text
        kind = listing.kind(text) if text else ""
        if kind.startswith("ldg"):
            flying = not any(loop.first <= number <= loop.last for loop in copies)
        elif kind.startswith("stl"):
            flying, through_local = False, True
        elif kind in ("fma", "fma2", "mma"):
            adds += 1
            between += flying
    return through_local and adds > 0 and 2 * between >= adds


def _turns(local: int, items: int, kinds: Kinds) -> int:
    """Of a copy loop that fills local memory: its floats over those that a turn stores."""
    stored = sum(_bits(kind) // 32 * n for kind, n in kinds.items() if kind.startswith("stl"))
    return max(1, ceil(local / 4 / items / stored)) if stored else 1


def _loads(kinds: Kinds) -> int:
    return sum(count for kind, count in kinds.items() if kind.startswith("ldg"))


def _widest(kinds: Kinds, prefix: str) -> int:
    return max((_bits(kind) for kind in kinds if kind.startswith(prefix)), default=0)


def _bits(kind: str) -> int:
    return int(kind.partition(".")[2])


def _distinct(kind: str) -> float:
    """For multiply-adds of lanes; each lane has a part of a matrix instruction's fragments.

    Lanes of a wave share rows or columns of a tile: half of wide loads are the same bytes."""
    return 0.5 if kind.startswith("ldl") and _bits(kind) >= 64 else 1.0
