"""From a driver's facts to the `Target` that kernels are generated for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.config import DYNAMIC
from clinfer.device.quirks import Quirks
from clinfer.log import Log
from clinfer_kernels.spec import Target

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo

_LOG = Log("clinfer.device")
# What every GPU offers; more only where the device reports it.
_LEAST_GROUP = 256
_SUBGROUPS = ("cl_khr_subgroups", "cl_intel_subgroups")
_USED_EXTENSIONS = frozenset(
    {"cl_khr_fp16", "cl_khr_subgroups", "cl_intel_subgroups", "cl_khr_integer_dot_product"}
)


def derive_target(info: DeviceInfo, quirks: Quirks) -> Target:
    """The target of a device: class 'gpu' where it is presented as one, whatever its type."""
    is_gpu = info.name.startswith("GPU")
    subgroups = info.subgroup_sizes if _has_subgroups(info) else ()
    return Target(
        cls="gpu" if is_gpu else "cpu",
        vendor=_vendor(info),
        architecture=info.full_name if is_gpu else info.processor,
        compute_units=info.compute_units,
        vector_width=4 if is_gpu else info.vector_width,
        max_work_group=min(info.max_work_group, 1024) if is_gpu else _LEAST_GROUP,
        local_mem=info.local_mem,
        subgroup_sizes=subgroups,
        fp16="cl_khr_fp16" in info.extensions,
        fp64=info.fp64,
        int64_atomics="cl_khr_int64_base_atomics" in info.extensions,
        extensions=info.extensions & _USED_EXTENSIONS,
        dialect=quirks.dialect,
        matrix_units=_matrix_units(info) if is_gpu else (),
    )


def at_precision(target: Target, hint: str, name: str) -> Target:
    """The target multiplying with that precision; itself where it has no such matrix unit.

    'dynamic' is the fastest unit that gives float32's results. `name` is the device's, for the log.
    """
    if hint == DYNAMIC:
        hint = exact_precision(target)
    if hint == target.precision:
        return target
    if not has_precision(target, hint):
        _LOG.warning("%s has no matrix unit for %s: products are those of float32", name, hint)
        return target
    return target._replace(precision=hint)


def has_precision(target: Target, hint: str) -> bool:
    """Whether a device multiplies float32 of that precision by a matrix unit, or a CPU by pairs."""
    if target.cls == "cpu":
        if hint != "bf16":
            return False
        from clinfer_kernels.pair_dot import has_pairs

        return has_pairs(target)
    if not target.matrix_units:
        return False
    from clinfer_kernels.contraction.matrix_units import unit_for

    return unit_for(("float32", "float32"), target._replace(precision=hint)) is not None


def exact_precision(target: Target) -> str:
    """The precision of the fastest products whose error is float32's."""
    if not target.matrix_units:  # a start on a CPU does not import what is for GPUs
        return "f32"
    from clinfer_kernels.contraction.matrix_units import MATRIX_UNITS

    if any(MATRIX_UNITS[name].terms.hint == "bf16x3" for name in target.matrix_units):
        return "bf16x3"
    return "3xtf32" if has_precision(target, "3xtf32") else "f32"


def _matrix_units(info: DeviceInfo) -> tuple[str, ...]:
    from clinfer_kernels.contraction.matrix_units import available

    return available(info.capability, info.full_name, info.extensions, info.subgroup_sizes)


def _has_subgroups(info: DeviceInfo) -> bool:
    reported = any(name in info.extensions for name in _SUBGROUPS)
    return reported or "__opencl_c_subgroups" in info.features


def _vendor(info: DeviceInfo) -> str:
    names = {"nvidia": "nvidia", "intel": "intel", "advanced micro": "amd", "amd": "amd"}
    text = info.vendor.lower()
    return next((short for part, short in names.items() if part in text), "generic")
