"""Constant operands of float32 rounded, once, to what a matrix unit multiplies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clinfer_kernels.contraction.instructions import MatrixUnit

if TYPE_CHECKING:
    import numpy as np


def narrow_of(dtype: str, unit: MatrixUnit | None) -> str:
    """The 16-bit dtype that constants of `dtype` are kept in for a unit; '' where they stay."""
    if unit is None or dtype != "float32" or unit.packing.size != 2 or unit.is_exact:
        return ""
    return unit.operand


def narrowed(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """float32 as the bits of float16 or bfloat16, uint16, rounded to nearest even."""
    import numpy as np

    if dtype == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    even = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded = np.where(np.isnan(array), bits | np.uint32(0x400000), even)
    halves: np.ndarray[Any, Any] = (rounded >> np.uint32(16)).astype(np.uint16)
    return halves
