"""Kernel choice: what tuning data say of a problem, else the first candidate of its family.

A problem is a spec with the candidates that its family has for a target. Its digest covers both, so
that indices measured with another set of candidates, or on another kind of device, are never
applied. Rows that ship name problem and tile in words instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinfer.sha256 import sha256
from clinfer_kernels import tuned
from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.spec import Kernel, Launch, Target


@dataclass(frozen=True)
class Problem:
    """What is to be computed, and the ways to do it, the best guess first."""

    digest: str
    spec: Any
    tiles: tuple[Any, ...]

    def __str__(self) -> str:
        """'matmul 128x768 768x3072 float32': family, the first operands' sizes, dtype."""
        ins = self.spec.ins or self.spec.outs
        family = type(self.spec).__name__.removesuffix("Spec").lower()
        sizes = ["x".join(map(str, tensor.shape)) or "1" for tensor in ins[:2]]
        return " ".join([family, *sizes, ins[0].dtype])


class KernelChoice:
    """Gives the kernel for each spec, and remembers what it was asked for.

    `tuned` maps the digest of a problem to the index of a candidate; an index that there is no
    candidate for is not used. What `tuned` does not name is chosen by the rows that ship with the
    kernels (`clinfer_kernels.tuned`), by the problem's name, else the first candidate is taken. A
    candidate with a program among `refused`, digests of what the driver did not build, is passed
    over for the next one.
    """

    def __init__(
        self, tuned: Mapping[str, int] | None = None, refused: frozenset[str] = frozenset()
    ) -> None:
        self.problems: dict[str, Problem] = {}
        self.chosen: dict[str, int] = {}
        self._tuned = tuned or {}
        self._refused = refused
        self._made: dict[str, tuple[Any, Target, Kernel]] = {}

    def __call__(self, spec: Any, target: Target) -> Kernel | None:
        """The kernel for `spec` on `target`; None where the family takes no such operands."""
        tiles = candidates(spec, target)
        if not tiles:
            return None
        problem = Problem(_digest(spec, tiles, target), spec, tiles)
        index = self._tuned.get(problem.digest)
        if index is None:
            index = tuned.chosen(tiles, tuned.shipped(target).get(str(problem)))
        if index is None or not 0 <= index < len(tiles):
            index = 0
        self.problems[problem.digest] = problem
        self.chosen[problem.digest] = index
        # The digest tells 0.0 from -0.0, equality a symbol named 'a + b' from a sum.
        known = self._made.get(problem.digest)
        if known is None or known[:2] != (spec, target):
            kernel = self._emit(spec, tiles, index, target)
            known = (spec, target, kernel._replace(problem=problem.digest))
            self._made[problem.digest] = known
        return known[2]

    def _emit(self, spec: Any, tiles: tuple[Any, ...], index: int, target: Target) -> Kernel:
        family = family_of(spec)
        kernel = family.emit(spec, tiles[index], target)
        for tile in tiles[index + 1 :] if self._refused else ():
            if not any(_program(launch) in self._refused for launch in kernel.launches):
                break
            kernel = family.emit(spec, tile, target)
        return kernel


def _program(launch: Launch) -> str:
    """As `plan.Program.digest`."""
    return sha256(f"{launch.options}\0{launch.source}".encode()).hexdigest()


def _digest(spec: Any, tiles: tuple[Any, ...], target: Target) -> str:
    kind = (target.cls, target.vendor, target.dialect, target.vector_width)
    return sha256(repr((kind, spec, tiles)).encode()).hexdigest()[:24]
