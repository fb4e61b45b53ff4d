"""Matrix instructions, each with its emulation, what a device has of them, and what for.

Rows are in `units_nvidia`, `units_amd`, `units_intel`. Layouts are those of the vendors' manuals,
with A's rows and B's columns as indices. Along k a step's order is free, and so are the places of a
tile: chosen such that a work-item has whole vectors of LANES neighbouring columns, and loads
vectors of 128 bits. Of a device's units for the same operands the first is the fastest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from clinfer_kernels.contraction import units_amd, units_intel, units_nvidia
from clinfer_kernels.contraction.instructions import MatrixUnit
from clinfer_kernels.contraction.units import VECTOR_UNITS, Unit
from clinfer_kernels.contraction.units_intel import DPAS
from clinfer_kernels.spec import Target

EMULATED = " emulated"
"""What the name of a unit's emulation ends with."""

_HINTED = {
    "f32": "float32",
    "3xtf32": "float32",
    "bf16x3": "float32",
    "tf32": "tf32",
    "f16": "float16",
    "bf16": "bfloat16",
}
_ROWS: Sequence[MatrixUnit] = (*units_nvidia.ROWS, *units_amd.ROWS, *units_intel.ROWS)


def _emulation(unit: MatrixUnit) -> MatrixUnit:
    name = unit.name + EMULATED
    return replace(unit, name=name, is_emulated=True, extension="", attribute="", options="")


MATRIX_UNITS = {unit.name: unit for row in _ROWS for unit in (row, _emulation(row))}
"""By name, each with its emulation."""


def available(
    capability: tuple[int, ...],
    architecture: str,
    extensions: Collection[str],
    subgroup_sizes: Collection[int] = (),
) -> tuple[str, ...]:
    """The units of a device: by NVIDIA's compute capability, AMD's gfx name, or an extension, with
    the least size of a sub-group (Arc A has 8, those after it 16)."""
    name = architecture.partition(":")[0]
    facts = {name, name[:5]} if name.startswith("gfx") else set()
    facts |= {f"sm_{10 * a + b}" for a, b in ((6, 1), (8, 0)) if capability >= (a, b)}
    if DPAS in extensions:
        facts.add(f"{DPAS} {8 if 8 in subgroup_sizes else 16}")
    return tuple(row.name for row in _ROWS if facts.intersection(row.needs))


UNITS: Mapping[str, Unit] = {**{unit.name: unit for unit in VECTOR_UNITS}, **MATRIX_UNITS}
"""All units by name, as `Target.units` lists what a device has."""


def unit_for(stored: Sequence[str], target: Target) -> MatrixUnit | None:
    """The matrix unit for operands of those dtypes; None where multiply-adds are to be used.

    16-bit operands are multiplied exactly, so they need no hint, but for units that take some of
    them for zero. 8-bit operands have sums of int32.
    """
    units = [MATRIX_UNITS[name] for name in target.matrix_units]
    operand = asked = _HINTED.get(target.precision, "")
    if set(stored) in ({"float16"}, {"bfloat16"}):
        units = [unit for unit in units if not unit.flushes or asked == stored[0]]
        if any(unit.operand == stored[0] for unit in units):
            operand = stored[0]
    elif stored and "int" in stored[0]:
        operand = stored[0] if stored[1] == "int8" else ""
    return next((u for u in units if u.operand == operand and _is_allowed(u, target)), None)


def _is_allowed(unit: MatrixUnit, target: Target) -> bool:
    """Sums of several terms lose infinite operands, so that they are to be asked for."""
    return unit.terms.hint in ("", target.precision)
