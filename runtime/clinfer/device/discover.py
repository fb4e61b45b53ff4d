"""OpenCL devices by name: 'CPU', 'GPU', 'AUTO'; of several of a kind 'GPU.0', 'GPU.1' and so on.

Of several CPU runtimes the one that is known as the fastest is 'CPU', and the next 'CPU.1'.
"""

from __future__ import annotations

import os
from collections.abc import Set
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

from clinfer import config
from clinfer.device import pocl_view
from clinfer.device.asked import Asked, asked_of
from clinfer.device.cpu_target import CpuTarget, named
from clinfer.device.failures import driver_errors
from clinfer.device.loader import refuse
from clinfer.device.opencl import INSTALL, choose_built_ins, cl, is_lost, loaders_package
from clinfer.device.pocl_cpu import compile_for, name_a_known_processor, uses_avx512
from clinfer.device.processor import float_lanes, instruction_set
from clinfer.device.quirks import Quirks, quirks_of
from clinfer.device.target import at_precision, derive_target
from clinfer.device.zebin import version_of
from clinfer.errors import DeviceError, listed
from clinfer.log import Log
from clinfer.names import mode_of
from clinfer_kernels.spec import Target

_LOG = Log("clinfer.device")
# CPU runtimes without a player, the fastest known first: parts of platform names.
_CPU_PREFERENCE = ("intel(r) opencl", "portable computing language")


_seen: list[tuple[DeviceInfo, Any]] = []  # when the devices were last asked for


class DeviceInfo(NamedTuple):
    """A device as its driver describes it. Sizes in bytes.

    name: ours, 'CPU', 'GPU.0' ...; kind: 'cpu' | 'gpu' | 'accelerator', the driver's view.
    vector_width: float32 lanes of the registers that its compiler really uses.
    processor: of a CPU, what its machine code needs beyond what the other fields say.
    is_simulated: it builds programs but executes nothing.
    cpu_target: what code is made for where CPU_TARGET names it; '' where it is the machine's.
    capability: of NVIDIA's devices, the compute capability.
    ip_version: of Intel's GPUs, the architecture's version, (20, 1, 4) of a B580; () unknown.
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
    cpu_target: str = ""
    capability: tuple[int, ...] = (0, 0)
    ip_version: tuple[int, ...] = ()

    @property
    def plays(self) -> bool:
        """Whether the player can run plans here: it calls the driver's machine code."""
        has_code = quirks_of(self.platform, self.platform_version).plays
        return has_code and (bool(self.cpu_target) or "x86-64" in self.processor)

    @property
    def shares_host_memory(self) -> bool:
        """Whether the device reads host memory in place."""
        return quirks_of(self.platform, self.platform_version).shares_host_memory

    def named(self, name: str) -> DeviceInfo:
        """The same device under another name of ours."""
        return self._replace(name=name)


class Device:
    """An opened device: its facts, its target, a context; one of its own where none is given.

    `found` is how its driver describes it, `info` what it compiles for: the same, unless CPU_TARGET
    names another processor.
    """

    def __init__(
        self, info: DeviceInfo, handle: Any, target: CpuTarget | None = None, context: Any = None
    ) -> None:
        self.found = info
        self.cpu_target = target
        self.info = info = info if target is None else target.described(info)
        self._given = context
        self.cl = handle
        self.followed: Any = None  # somebody else's queue, in whose order runs with buffers are
        self.quirks: Quirks = quirks_of(info.platform, info.platform_version)
        self.target: Target = derive_target(info, self.quirks)
        with driver_errors(info):
            made = context is None and not is_lost()
            self._context = cl().Context([handle]) if made else context

    @property
    def context(self) -> Any:
        """The driver's context. Raises `DeviceError` in a forked child, where there is none."""
        if self._context is None:
            refuse()
        return self._context

    def aimed(self, name: str) -> Device:
        """The device compiling for a value of CPU_TARGET; itself where that is '' or it is a GPU.

        Raises `DeviceError` where its driver compiles for this machine only.
        """
        target = named(name) if self.found.kind == "cpu" and self.target.cls == "cpu" else None
        if target is None or target == self.cpu_target:
            return self
        if not self.found.plays:
            raise DeviceError(
                f"CPU_TARGET={name}: {self.found.platform} compiles for this machine only; "
                "install clinfer[pocl], or leave CPU_TARGET unset"
            )
        pocl_view.require(loaders_package())
        return Device(self.found, self.cl, target, self._given)

    def at_precision(self, hint: str) -> Device:
        """The device multiplying with that precision (`target.at_precision`)."""
        target = at_precision(self.target, hint, self.info.name)
        if target is self.target:
            return self
        device = copy(self)
        device.target = target
        return device

    def require_runs(self) -> None:
        """Raises `DeviceError` in a forked child where every plan needs the driver, and where the
        processor lacks instructions of CPU_TARGET."""
        if self.cpu_target is not None:
            self.cpu_target.require_here()
        self.require_driver()

    def require_driver(self) -> None:
        """Raises `DeviceError` in a forked child where every plan needs the driver."""
        if is_lost() and not (self.info.plays and self.target.cls == "cpu"):
            refuse()

    @property
    def shares_host_memory(self) -> bool:
        """Whether the device reads host memory in place."""
        return self.info.shares_host_memory

    @cached_property
    def has_own_memory(self) -> bool:
        """Whether what it computes with lies in memory of its own, with a bus in between."""
        return not (self.shares_host_memory or self.cl.host_unified_memory)

    def new_queue(self, profiling: bool = False) -> Any:
        """An in-order command queue."""
        flags = cl().command_queue_properties.PROFILING_ENABLE if profiling else 0
        return cl().CommandQueue(self.context, properties=flags)


def list_devices() -> list[DeviceInfo]:
    """Every CPU runtime, best first, and every GPU. Raises `DeviceError` where there is nothing."""
    return [info for info, _ in _found()]


def open_device(name: str = "AUTO", cpu_target: str = "") -> Device:
    """The device of that name; AUTO is the most capable one, 'AUTO:GPU,CPU' the first there is.

    See `Device.aimed` for `cpu_target`.

    Raises `DeviceError` naming the devices there are, and for a name of several devices.
    """
    found = _found()
    asked = asked_of(name, [info for info, _ in found])
    if asked.mode in ("MULTI", "HETERO"):
        raise DeviceError(f"{name!r} has no meaning here, where one device is expected: name it")
    for info, handle in found:
        if info.name == asked.devices[0]:
            _LOG.debug(
                "%s is %s, driver %s, of platform %s, %s",
                info.name, info.full_name, info.driver_version, info.platform,
                info.platform_version,
            )  # fmt: skip
            device = Device(info, handle)
            return device.aimed(cpu_target) if cpu_target else device
    raise AssertionError(asked)


def asked_for(name: str) -> Asked:
    """The devices that a name stands for. Raises `DeviceError` naming the devices there are."""
    return asked_of(name, list_devices())


def one_device(name: str) -> str:
    """The best device in place of AUTO, for what wants the same device in every run."""
    return asked_for(name).devices[0] if mode_of(name) == "AUTO" else name


def device_in(context: Any, handles: list[int], name: str | None = None) -> Device:
    """The device of a context that is not clinfer's; the one of that name where several are.

    `handles` are the context's devices. Raises `DeviceError` where none is a device of clinfer's.
    """
    there = [(info, handle) for info, handle in _found() if handle.int_ptr in handles]
    if not there:
        raise DeviceError("the devices of the context are none that clinfer has")
    wanted = asked_of(name or "AUTO", [info for info, _ in there]).devices
    info, handle = next(pair for pair in there if pair[0].name in wanted)
    return Device(info, handle, context=context)


def open_context(platform: str, device: str, cpu_target: str = "") -> tuple[Any, Quirks]:
    """A context on the device of that full name and the device's quirks, for a build worker.

    It compiles for `cpu_target`, a value of CPU_TARGET; then this process has not yet loaded
    drivers. Raises `DeviceError` where the device is not there.
    """
    target = named(cpu_target)
    if target is not None:
        choose_built_ins(target.library)
    for candidate in _platforms():
        for info, handle in _devices(candidate):
            if (info.platform, info.full_name) == (platform, device):
                if target is not None:
                    compile_for(handle.int_ptr, target.compiler)
                return cl().Context([handle]), quirks_of(platform, info.platform_version)
    raise DeviceError(f"no device {device!r} of OpenCL platform {platform!r}")


def _found() -> list[tuple[DeviceInfo, Any]]:
    gpus: list[tuple[DeviceInfo, Any]] = []
    cpus: list[tuple[DeviceInfo, Any]] = []
    as_gpu = config.GPU_PLATFORM.get()
    described = _described()
    _check_platform(as_gpu, {info.platform for info, _ in described})
    for info, handle in described:
        presented = as_gpu is not None and as_gpu.lower() in info.platform.lower()
        if presented or info.kind == "gpu":
            gpus.append((info, handle))
        if info.kind == "cpu":
            cpus.append((info, handle))
    found = [*_numbered("CPU", _chosen_cpus(cpus), plain=True), *_numbered("GPU", gpus)]
    if not found:
        raise DeviceError(f"no OpenCL device was found; {INSTALL}")
    return found


def _check_platform(wanted: str | None, names: Set[str]) -> None:
    """Raises `DeviceError` where no platform has what is to be presented as a GPU in its name."""
    if wanted is not None and names and not any(wanted.lower() in name.lower() for name in names):
        raise DeviceError(
            f"CLINFER_GPU_PLATFORM={wanted!r} fits no platform; there are: {listed(sorted(names))}"
        )


def _described() -> list[tuple[DeviceInfo, Any]]:
    """Every device; in a forked child those that the parent has seen, since no driver answers."""
    if not (is_lost() and _seen):
        _seen[:] = [pair for platform in _platforms() for pair in _devices(platform)]
    return _seen


def _numbered(
    name: str, pairs: list[tuple[DeviceInfo, Any]], plain: bool = False
) -> list[tuple[DeviceInfo, Any]]:
    """One device has the plain name, several are numbered; the first stays `plain` where asked."""
    unnumbered = 1 if plain or len(pairs) == 1 else 0
    return [
        (info.named(name if i < unnumbered else f"{name}.{i}"), handle)
        for i, (info, handle) in enumerate(pairs)
    ]


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
        capability=_capability(handle, extensions),
        ip_version=_ip_version(handle, extensions),
    )


def _capability(handle: Any, extensions: frozenset[str]) -> tuple[int, ...]:
    """NVIDIA's compute capability, (9, 0) of an H200; (0, 0) of others' devices."""
    if "cl_nv_device_attribute_query" not in extensions:
        return 0, 0
    try:
        return handle.compute_capability_major_nv, handle.compute_capability_minor_nv
    except cl().Error as error:
        if error.is_trouble:
            raise
        return 0, 0


def _ip_version(handle: Any, extensions: frozenset[str]) -> tuple[int, ...]:
    """What CL_DEVICE_IP_VERSION_INTEL says (`zebin.version_of`)."""
    if "cl_intel_device_attribute_query" not in extensions:
        return ()
    try:
        return version_of(handle.ip_version_intel)
    except cl().Error as error:
        if error.is_trouble:
            raise
        return ()


def _features(handle: Any) -> frozenset[str]:
    """Names of OpenCL C 3.0 features ('__opencl_c_subgroups'); none on older devices."""
    try:
        return frozenset(handle.opencl_c_features)
    except cl().Error as error:
        if error.is_trouble:
            raise
        return frozenset()


def _subgroup_sizes(handle: Any, extensions: frozenset[str]) -> tuple[int, ...]:
    if "cl_intel_required_subgroup_size" not in extensions:
        return ()
    try:
        sizes: tuple[int, ...] = handle.sub_group_sizes_intel
    except cl().Error as error:
        if error.is_trouble:
            raise
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
