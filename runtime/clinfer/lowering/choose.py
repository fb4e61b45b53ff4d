"""Kernel choice: what tuning data say of a problem, else the first candidate of its family.

A problem is a spec with the candidates that its family has for a target. Its digest covers both, so
that data of another set of candidates, or of another kind of device, are never applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clinfer.sha256 import sha256
from clinfer_kernels import tuned
from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.spec import Kernel, Target


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
    candidate for is not used. What `tuned` does not name is chosen by the data that ship with the
    kernels, else the first candidate is taken.
    """

    def __init__(self, tuned: Mapping[str, int] | None = None) -> None:
        self.problems: dict[str, Problem] = {}
        self.chosen: dict[str, int] = {}
        self._tuned = tuned or {}

    def __call__(self, spec: Any, target: Target) -> Kernel | None:
        """The kernel for `spec` on `target`; None where the family takes no such operands."""
        tiles = candidates(spec, target)
        if not tiles:
            return None
        problem = Problem(_digest(spec, tiles, target), spec, tiles)
        index = self._tuned.get(problem.digest, tuned.shipped(target).get(problem.digest, 0))
        if not 0 <= index < len(tiles):
            index = 0
        self.problems[problem.digest] = problem
        self.chosen[problem.digest] = index
        kernel = family_of(spec).emit(spec, tiles[index], target)
        return kernel._replace(problem=problem.digest)


def _digest(spec: Any, tiles: tuple[Any, ...], target: Target) -> str:
    kind = (target.cls, target.vendor, target.dialect, target.vector_width)
    return sha256(repr((kind, spec, tiles)).encode()).hexdigest()[:24]
