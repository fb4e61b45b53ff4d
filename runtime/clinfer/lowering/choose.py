"""Kernel choice: the first candidate of the spec's family, unless tuning data names another."""

from __future__ import annotations

from typing import Any

from clinfer_kernels.families import family_of

from clinfer_kernels.spec import Kernel, Target


def choose(spec: Any, target: Target) -> Kernel | None:
    """The kernel for `spec` on `target`; None where the family takes no such operands."""
    family = family_of(spec)
    candidates = family.candidates(spec, target)
    if not candidates:
        return None
    kernel: Kernel = family.emit(spec, candidates[0], target)
    return kernel
