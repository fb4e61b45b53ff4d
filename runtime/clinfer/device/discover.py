"""OpenCL devices by name: 'CPU', 'GPU', 'AUTO'; of several of a kind 'GPU.0', 'GPU.1' and so on.

Of several CPU runtimes the one that is known as the fastest is 'CPU.0', and so 'CPU'.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from clinfer import config
from clinfer.device.opencl import INSTALL, cl
from clinfer.device.pocl_cpu import name_a_known_processor, uses_avx512
from clinfer.device.processor import float_lanes, instruction_set
from clinfer.device.quirks import Quirks, quirks_of
from clinfer.device.target import derive_target
from clinfer.errors import DeviceError
from clinfer.log import Log
from clinfer_kernels.spec import Target

_LOG = Log("clinfer.device")
# CPU runtimes without a player, the fastest known first: parts of platform names.
_CPU_PREFERENCE = ("intel(r) opencl", "portable computing language")


class DeviceInfo(NamedTuple):
    """A device as its driver describes it. Sizes in bytes.

    name: ours, 'CPU', 'GPU.0' ...; kind: 'cpu' | 'gpu' | 'accelerator', the driver's view.
    vector_width: float32 lanes of the registers that its compiler really uses.
    processor: of a CPU, what its machine code needs beyond what the other fields say.
    is_simulated: it builds programs but executes nothing.
    """

    name: str
    full_name: str
    vendor: str
    kind: str
    platform: str
    platform_version: str
    device_version: str
    driver_version: str
    language: str
    compute_units: int
    global_mem: int
    max_alloc: int
    local_mem: int
    max_work_group: int
    mem_base_align: int
    vector_width: int
    extensions: frozenset[str]
    features: frozenset[str]
    subgroup_sizes: tuple[int, ...]
    fp64: bool
    processor: str = ""
    is_simulated: bool = False

    @property
    def plays(self) -> bool:
        """Whether the player can run plans here: it calls the driver's machine code."""
        has_code = quirks_of(self.platform, self.platform_version).plays
        return has_code and "x86-64" in self.processor

    def named(self, name: str) -> DeviceInfo:
        """The same device under another name of ours."""
        return self._replace(name=name)


class Device:
    """An opened device: its facts, its target, a context."""

    def __init__(self, info: DeviceInfo, handle: Any) -> None:
        self.info = info
        self.cl = handle
        self.quirks: Quirks = quirks_of(info.platform, info.platform_version)
        self.target: Target = derive_target(info, self.quirks)
        self.context = cl().Context([handle])

    @property
    def shares_host_memory(self) -> bool:
        """Whether the device reads host memory in place."""
        return self.quirks.shares_host_memory

    def new_queue(self, profiling: bool = False) -> Any:
        """An in-order command queue."""
        flags = cl().command_queue_properties.PROFILING_ENABLE if profiling else 0
        return cl().CommandQueue(self.context, properties=flags)


def list_devices() -> list[DeviceInfo]:
    """Every CPU runtime, best first, and every GPU. Raises `DeviceError` where there is nothing."""
    return [info for info, _ in _found()]


def open_device(name: str = "AUTO") -> Device:
    """The device of that name; AUTO is the first GPU, else the first CPU.

    Raises `DeviceError` naming the devices there are.
    """
    found = _found()
    wanted = name.upper()
    if wanted == "AUTO":
        order = sorted(found, key=lambda pair: not pair[0].name.startswith("GPU"))
        return Device(*order[0])
    for info, handle in found:
        if is_named(info.name, wanted):
            return Device(info, handle)
    names = ", ".join(info.name for info, _ in found)
    hint = f"; {INSTALL}" if wanted in ("CPU", "GPU") else ""
    raise DeviceError(f"there is no device {name!r}; devices here: {names}{hint}")


def is_named(name: str, wanted: str) -> bool:
    """Whether a device is meant by a name in capitals: 'GPU' is the first GPU, and 'GPU.0' too."""
    return name.removesuffix(".0") == wanted.removesuffix(".0")


def open_context(platform: str, device: str) -> tuple[Any, Quirks]:
    """A context on the device of that full name and the device's quirks, for a build worker.

    Raises `DeviceError` where it is not there.
    """
    for candidate in _platforms():
        for info, handle in _devices(candidate):
            if (info.platform, info.full_name) == (platform, device):
                return cl().Context([handle]), quirks_of(platform, info.platform_version)
    raise DeviceError(f"no device {device!r} of OpenCL platform {platform!r}")


def _found() -> list[tuple[DeviceInfo, Any]]:
    gpus: list[tuple[DeviceInfo, Any]] = []
    cpus: list[tuple[DeviceInfo, Any]] = []
    as_gpu = config.GPU_PLATFORM.get()
    for platform in _platforms():
        for info, handle in _devices(platform):
            presented = as_gpu is not None and as_gpu.lower() in info.platform.lower()
            if presented or info.kind == "gpu":
                gpus.append((info, handle))
            if info.kind == "cpu":
                cpus.append((info, handle))
    found = [*_numbered("CPU", _chosen_cpus(cpus)), *_numbered("GPU", gpus)]
    if not found:
        raise DeviceError(f"no OpenCL device was found; {INSTALL}")
    return found


def _numbered(name: str, pairs: list[tuple[DeviceInfo, Any]]) -> list[tuple[DeviceInfo, Any]]:
    """One device has the plain name, several are numbered."""
    if len(pairs) == 1:
        return [(pairs[0][0].named(name), pairs[0][1])]
    return [(info.named(f"{name}.{i}"), handle) for i, (info, handle) in enumerate(pairs)]


def _chosen_cpus(cpus: list[tuple[DeviceInfo, Any]]) -> list[tuple[DeviceInfo, Any]]:
    """The CPU devices, best first; only of the platform that CLINFER_CPU_PLATFORM names."""
    wanted = config.CPU_PLATFORM.get()
    if wanted is not None:
        fitting = [pair for pair in cpus if wanted.lower() in pair[0].platform.lower()]
        if not fitting and cpus:
            names = ", ".join(sorted({info.platform for info, _ in cpus}))
            raise DeviceError(
                f"CLINFER_CPU_PLATFORM={wanted!r} fits no CPU platform; there are: {names}"
            )
        cpus = fitting
    return sorted(cpus, key=lambda pair: _rank(pair[0]))


def _rank(info: DeviceInfo) -> int:
    if info.plays:
        return -1
    for rank, pattern in enumerate(_CPU_PREFERENCE):
        if pattern in info.platform.lower():
            return rank
    return len(_CPU_PREFERENCE)


def _platforms() -> list[Any]:
    opencl = cl()
    try:
        return list(opencl.get_platforms())
    except opencl.Error as error:
        raise DeviceError(f"no OpenCL platform was found ({error}); {INSTALL}") from error


def _devices(platform: Any) -> list[tuple[DeviceInfo, Any]]:
    """The platform's devices; one whose driver fails when asked is left out with a warning."""
    opencl = cl()
    try:
        handles = platform.get_devices()
    except opencl.Error as error:
        _LOG.warning("OpenCL platform %s gives no devices: %s", _name(platform), error)
        return []
    described = [(_try_to_describe(platform, handle), handle) for handle in handles]
    return [(info, handle) for info, handle in described if info is not None]


def _try_to_describe(platform: Any, handle: Any) -> DeviceInfo | None:
    try:
        return _describe(platform, handle)
    except cl().Error as error:
        _LOG.warning("a device of OpenCL platform %s fails: %s", _name(platform), error)
    return None


def _name(platform: Any) -> str:
    try:
        return repr(platform.name)
    except cl().Error:
        return "(that does not tell its name)"


def _describe(platform: Any, handle: Any) -> DeviceInfo:
    opencl = cl()
    kinds = {opencl.device_type.CPU: "cpu", opencl.device_type.GPU: "gpu"}
    kind = next((k for bit, k in kinds.items() if handle.type & bit), "accelerator")
    extensions = frozenset(handle.extensions.split())
    processor, lanes = _processor(platform, handle)
    return DeviceInfo(
        name="",
        full_name=handle.name.strip(),
        vendor=handle.vendor.strip(),
        kind=kind,
        platform=platform.name.strip(),
        platform_version=platform.version.strip(),
        device_version=handle.version.strip(),
        driver_version=handle.driver_version.strip(),
        language=handle.opencl_c_version.strip(),
        compute_units=handle.max_compute_units,
        global_mem=handle.global_mem_size,
        max_alloc=handle.max_mem_alloc_size,
        local_mem=handle.local_mem_size,
        max_work_group=handle.max_work_group_size,
        mem_base_align=max(handle.mem_base_addr_align // 8, 1),
        vector_width=lanes,
        extensions=extensions,
        features=_features(handle),
        subgroup_sizes=_subgroup_sizes(handle, extensions),
        fp64=bool(handle.double_fp_config),
        processor=processor,
        is_simulated=_is_simulated(platform),
    )


def _features(handle: Any) -> frozenset[str]:
    """Names of OpenCL C 3.0 features ('__opencl_c_subgroups'); none on older devices."""
    try:
        return frozenset(handle.opencl_c_features)
    except cl().Error:
        return frozenset()


def _subgroup_sizes(handle: Any, extensions: frozenset[str]) -> tuple[int, ...]:
    if "cl_intel_required_subgroup_size" not in extensions:
        return ()
    try:
        sizes: tuple[int, ...] = handle.sub_group_sizes_intel
    except cl().Error:
        return ()
    return sizes


def _processor(platform: Any, handle: Any) -> tuple[str, int]:
    """What a CPU device's machine code needs, and the float32 lanes that are used of registers."""
    if not handle.type & cl().device_type.CPU:
        return "", handle.native_vector_width_float
    if "portable computing language" not in platform.name.lower():
        return instruction_set(), float_lanes()
    name = name_a_known_processor(handle.int_ptr)
    if name is None:
        return instruction_set(), min(float_lanes(), 8)
    # The library of built-in functions is chosen by the host's features, the rest by the name.
    return f"{name}/{instruction_set()}", min(float_lanes(), 16 if uses_avx512(name) else 8)


def _is_simulated(platform: Any) -> bool:
    """Whether Intel's GPU driver was told to present a device that is not there."""
    switches = ("NEOReadDebugKeys", "SetCommandStreamReceiver")
    told = all(os.environ.get(name, "0") not in ("", "0") for name in switches)
    return told and quirks_of(platform.name).dialect == "intel"
