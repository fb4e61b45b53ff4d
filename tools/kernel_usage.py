"""What a kernel takes of a GPU, what the GPU has, and what of that does not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import ceil, prod

from clinfer_kernels.spec import Target
from kernel_units import Unit


@dataclass(frozen=True)
class Usage:
    """Of one kernel. Sizes in bytes; None where a compiler does not say.

    registers: 32-bit registers of a work-item.
    spilled: of a work-item (AMD, NVIDIA) or of a hardware thread (Intel): what did not fit.
    local: of a work-group; scratch: private memory of a work-item, spills included.
    occupancy: waves that a SIMD holds at once (AMD), warps of a multiprocessor in percent
        (NVIDIA), work-items of a hardware thread (Intel).
    """

    registers: int | None = None
    spilled: int = 0
    local: int = 0
    scratch: int = 0
    binary: int = 0
    occupancy: int | None = None
    most_items: int | None = None


@dataclass(frozen=True)
class Limits:
    """A GPU. Sizes in bytes.

    file: 32-bit registers that the work-items of a group share; 0 where they are fixed (Intel).
    wave: the number of work-items is rounded up to it, registers of a work-item to `step`.
    """

    most_items: int
    local: int
    fp16: bool
    fp64: bool
    file: int = 0
    wave: int = 1
    step: int = 1


@dataclass(frozen=True)
class Result:
    """One kernel on one device; `faults` says what is wrong with it."""

    device: str
    unit: Unit
    usage: Usage | None
    faults: tuple[str, ...] = ()


_NEEDS = (
    ("fp64", re.compile(r"\bdouble\d*\b|cl_khr_fp64"), "float64 (cl_khr_fp64)"),
    ("fp16", re.compile(r"cl_khr_fp16|\bhalf\d*\s+\w+\s*[=;,)]"), "float16 (cl_khr_fp16)"),
)


def checked(result: Result, limits: Limits) -> Result:
    """The result with a fault for every limit of the device that the kernel exceeds."""
    faults = [*result.faults, *_missing(result.unit, limits)]
    if result.usage is not None:
        faults += _exceeded(result.unit, result.usage, limits)
    return replace(result, faults=tuple(faults))


def _missing(unit: Unit, limits: Limits) -> list[str]:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", unit.source, flags=re.DOTALL)
    return [
        f"uses {what}, which the device lacks"
        for field, pattern, what in _NEEDS
        if not getattr(limits, field) and pattern.search(code)
    ]


def _exceeded(unit: Unit, usage: Usage, limits: Limits) -> list[str]:
    items = prod(unit.group)
    most = limits.most_items if usage.most_items is None else usage.most_items
    faults = []
    if items > most:
        faults.append(f"groups of {items} work-items; the device takes {most}")
    if usage.local > limits.local:
        faults.append(f"{usage.local} bytes of local memory; the device has {limits.local}")
    if limits.file and usage.registers is not None:
        needed = allocated(usage.registers, limits) * ceil(items / limits.wave) * limits.wave
        if needed > limits.file:
            faults.append(f"a group takes {needed} registers; the device has {limits.file}")
    return faults


def allocated(registers: int, limits: Limits) -> int:
    """Registers of a work-item as hardware allocates them."""
    return max(1, ceil(registers / limits.step)) * limits.step


def limits_of(target: Target, file: int = 0, wave: int = 1, step: int = 1) -> Limits:
    """The limits that kernels are generated for, with a register file."""
    sizes = (target.max_work_group, target.local_mem)
    return Limits(*sizes, fp16=target.fp16, fp64=target.fp64, file=file, wave=wave, step=step)
