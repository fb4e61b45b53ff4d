"""Kernel choice: the first candidate of the spec's family, unless tuning data names another."""

from __future__ import annotations

from typing import Any

from clinfer_kernels.families import candidates, family_of
from clinfer_kernels.spec import Kernel, Target


def choose(spec: Any, target: Target) -> Kernel | None:
    """The kernel for `spec` on `target`; None where the family takes no such operands."""
    tiles = candidates(spec, target)
    return family_of(spec).emit(spec, tiles[0], target) if tiles else None
