"""What tools/check_kernels.py compiles: the programs that lowering makes, and the other schedules.

    'model'        chosen for a model of tests/models
    'operator'     chosen for one of ONNX's backend test cases (kind 'node')
    'alternative'  a schedule that a family offers beside the chosen one; tuning may choose it
    'small'        chosen for a model on a GPU with work-groups of 64 and 16 KiB of local memory

A text counts once, under the first of these that it comes from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Graph
from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.passes.pipeline import optimise
from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.spec import Kernel, Launch, Target

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests" / "models"
_EVERY = 8  # of the test cases, one in so many for a quick check
ORIGINS = ("model", "operator", "alternative", "small")


@dataclass(frozen=True)
class Unit:
    """An OpenCL C text with its kernel, the size of its work-groups and where it comes from."""

    entry: str
    source: str
    options: str
    group: tuple[int, int, int]
    origin: str

    @property
    def digest(self) -> str:
        """Eight hex digits over text and options, as in kernels/generated."""
        return sha256(f"{self.options}\0{self.source}".encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """Entry and digest."""
        return f"{self.entry}-{self.digest}"

    @property
    def family(self) -> str:
        """The first word of the entry: 'conv', 'matmul', ..."""
        return self.entry.split("_")[0]


class Recorder:
    """Chooses as clinfer does, and keeps every launch of every schedule offered on the way."""

    def __init__(self, origin: str, with_alternatives: bool) -> None:
        self._choice = KernelChoice()
        self._origin = origin
        self._with_alternatives = with_alternatives
        self.units: dict[str, Unit] = {}

    def choose(self, spec: Any, target: Target) -> Kernel | None:
        """A chooser for `lower`."""
        kernel = self._choice(spec, target)
        if kernel is None:
            return None
        self._keep(kernel.launches, self._origin)
        if self._with_alternatives:
            for tile in candidates(spec, target):
                kept = family_of(spec).emit(spec, tile, target)
                self._keep(kept.launches, "alternative")
        return kernel

    def _keep(self, launches: Iterable[Launch], origin: str) -> None:
        for launch in launches:
            x, y, z = [*launch.local_size, 1, 1][:3]
            unit = Unit(launch.entry, launch.source, launch.options, (x, y, z), origin)
            known = self.units.get(unit.digest)
            if known is None or ORIGINS.index(origin) < ORIGINS.index(known.origin):
                self.units[unit.digest] = unit


def units_for(target: Target, quick: bool) -> list[Unit]:
    """Every text for a target, by origin and entry.

    `quick` keeps one per entry of those chosen for models, and the longest of each other family's.
    """
    recorders = [_recorded("model", target, not quick, _models())]
    if not quick:
        small = target._replace(max_work_group=64, local_mem=16384)
        recorders.append(_recorded("small", small, False, _models()))
    recorders.append(_recorded("operator", target, not quick, _cases(_EVERY if quick else 1)))
    found: dict[str, Unit] = {}
    for origin in ORIGINS:
        for recorder in recorders:
            for digest, unit in recorder.units.items():
                if unit.origin == origin:
                    found.setdefault(digest, unit)
    units = sorted(found.values(), key=lambda u: (ORIGINS.index(u.origin), u.entry, u.digest))
    return _subset(units) if quick else units


def _recorded(origin: str, target: Target, alternatives: bool, graphs: Iterator[Graph]) -> Recorder:
    recorder = Recorder(origin, alternatives)
    for graph in graphs:
        with suppress(UnsupportedError):  # the device lacks something, and clinfer says so
            lower(graph, target, recorder.choose)
    return recorder


def _models() -> Iterator[Graph]:
    for path in sorted(MODELS.glob("*.onnx")):
        yield _optimised(path)


def _cases(step: int) -> Iterator[Graph]:
    cases = _all_cases()
    names = [name for name, kind in cases.kinds.items() if kind == "node"]
    for name in names[::step]:
        yield _optimised(cases.model(name))


@cache
def _all_cases() -> Any:
    from conformance_cases import Cases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Cases()


def _optimised(model: Any) -> Graph:
    graph = read(model).graph()
    optimise(graph)
    return graph


def _subset(units: list[Unit]) -> list[Unit]:
    chosen: dict[str, Unit] = {}
    for unit in units:
        key = unit.entry if unit.origin == "model" else unit.family
        if key not in chosen or len(unit.source) > len(chosen[key].source):
            chosen[key] = unit
    return list(chosen.values())
