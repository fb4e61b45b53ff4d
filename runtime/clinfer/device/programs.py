"""OpenCL programs: built from source, in parallel, and loaded from binaries."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from clinfer import config, forks
from clinfer.device import compiling, machine_code
from clinfer.device.failures import driver_errors
from clinfer.device.machine_code import MachineCode
from clinfer.device.opencl import cl, is_lost
from clinfer.device.sources import SECONDS_PER_PROGRAM, SourceProgram
from clinfer.errors import BuildError, DeviceError
from clinfer.log import Log
from clinfer.threads import executor, usable_cores

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.ocloc import OclocDevice
    from clinfer.device.workers import Done, Wanted

__all__ = [
    "BuiltProgram",
    "Progress",
    "SourceProgram",
    "build",
    "build_binaries",
    "build_each",
    "load",
    "prepare",
]

_LOG = Log("clinfer.device")
_SHORT = frozenset([errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM])
Progress = Callable[[str], None]


Remake = Callable[[BuildError], "BuiltProgram"]
"""Makes a program anew whose binary the driver refuses."""


class BuiltProgram:
    """A program on its device; of one with a binary the driver hears when it is to be `ready`.

    `remake` is asked where the driver then refuses the binary; without it that is an error.
    """

    def __init__(
        self,
        device: Device,
        source: SourceProgram,
        program: Any = None,
        binary: bytes | None = None,
        remake: Remake | None = None,
    ) -> None:
        self._remake = remake
        self.was_remade = False
        self._device = device
        self._source = source
        self._program = program
        self._binary = binary
        self._lock = forks.new_lock()

    @property
    def entry(self) -> str:
        """The kernel's name."""
        return self._source.entry

    @property
    def may_wait(self) -> bool:
        """Whether the driver need not have it before it is used: its refusal is made good then."""
        return self._remake is not None

    def ready(self) -> Any:
        """The driver's program.

        Raises `BuildError` where the driver refuses the binary, it is not one of this kernel, or
        the driver has silently made another one from it, and it cannot be made anew; `DeviceError`
        where it fails for reasons that lie not in the binary.
        """
        with self._lock:
            if self._program is None:
                assert self._binary is not None
                try:
                    with driver_errors(self._device.info):
                        self._program = _from_binary(self._device, self._source, self._binary)
                except BuildError as error:
                    if self._remake is None:
                        raise
                    made = self._remake(error)
                    self._program, self._binary = made.ready(), made.binary()
                    self.was_remade = True
            return self._program

    def kernel(self) -> Any:
        """A new kernel object, with arguments of its own."""
        return cl().Kernel(self.ready(), self.entry)

    def code(self) -> MachineCode:
        """The kernel's function in this process, for a device whose quirks say `plays`."""
        return machine_code.load(self.binary(), self.entry)

    def binary(self) -> bytes:
        """The device's binary, with the final code in it as far as the driver gives that."""
        if self._binary is None:
            with driver_errors(self._device.info):
                if self._device.quirks.finishes_at == "kernel":
                    self.kernel()
                self._binary = compiling.driver_binary(self.ready(), self._source.local_size)
        return self._binary


def build(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[BuiltProgram]:
    """Builds programs, `jobs` at a time; None or 0: CLINFER_COMPILE_JOBS, else a job per core.

    `progress` is called with a kernel's name as each is done, in some thread. Raises the
    `BuildError` of the first program, in the order given, that does not build; it has the kernel's
    name, the driver's log and the numbered source.
    """
    built: list[BuiltProgram] = []
    for source, result in zip(sources, build_each(device, sources, jobs, progress), strict=True):
        if isinstance(result, BuildError):
            result.digest = source.digest
            raise result
        built.append(result)
    return built


def build_each(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int | None = None,
    progress: Progress | None = None,
    seconds: float = SECONDS_PER_PROGRAM,
) -> list[BuiltProgram | BuildError]:
    """As `build`, but a program that does not build has its error in its place.

    Where programs are built in worker processes, one may take that many seconds. Raises
    `DeviceError` where the device fails, whatever the program.
    """
    count = min(_jobs(jobs), len(sources))
    builds = device.quirks.builds
    if builds == "processes" and sources:
        try:
            return _in_processes(device, sources, count, progress, seconds)
        except OSError as error:
            if device.cpu_target is not None:  # this process's PoCL compiles for the machine
                raise DeviceError(f"no worker process can be started: {error}") from error
            if error.errno in _SHORT:  # the driver would end this process
                raise DeviceError(
                    f"no worker process can be started, and the driver cannot link here: {error}; "
                    "raise the limits of this process (ulimit -n, -u), or close files"
                ) from error
            _LOG.warning("no worker process can be started (%s); building one by one", error)
    if builds == "threads" and count > 1:
        try:
            return _in_threads(device, sources, count, progress)
        except OSError as error:
            _LOG.warning("no thread can be started (%s); building one by one", error)
    return [_attempt(device, source, progress) for source in sources]


def build_binaries(
    device: Device | OclocDevice,
    sources: Sequence[SourceProgram],
    done: Done,
    jobs: int | None = None,
    seconds: float = SECONDS_PER_PROGRAM,
    wanted: Wanted = lambda _: True,
) -> None:
    """Builds programs in worker processes, whatever the driver; none is loaded here.

    `wanted` is asked, by a source's number, just before it would be built. A compiler that crashes,
    or takes longer than those seconds, costs the program at hand only. `done` is told of each as it
    is finished, in some thread. Raises `DeviceError` where no process can be started.
    """
    if not sources:
        return
    from clinfer.device import workers
    from clinfer.device.ocloc import OclocDevice

    count = min(_jobs(jobs), len(sources))
    builder = device if isinstance(device, OclocDevice) else workers.pool_of(device)
    try:
        builder.build(sources, count, None, seconds, done, wanted)
    except OSError as error:
        raise DeviceError(f"no worker process can be started: {error}") from error


def probe(device: Device, entry: str, binary: bytes) -> None:
    """Gives a binary to the driver, up to a kernel of that name. Raises `BuildError`."""
    load(device, SourceProgram("", "", entry, ()), binary)


def prepare(device: Device, jobs: int | None = None, programs: int | None = None) -> None:
    """Says that a model's programs are going to be built, so that what that needs is ready by then.

    Starts worker processes where the device's programs are built in such, no more than `programs`
    where their number is known, and returns at once.
    """
    if device.quirks.builds == "processes":
        from clinfer.device import workers

        most = workers.MOST_PREPARED if programs is None else min(workers.MOST_PREPARED, programs)
        workers.pool_of(device).prepare(min(_jobs(jobs), most))


def load(
    device: Device,
    source: SourceProgram,
    binary: bytes,
    lazily: bool = False,
    remake: Remake | None = None,
) -> BuiltProgram:
    """A program from its binary; of `source` the entry and the group's size are used.

    Raises `BuildError` as `BuiltProgram.ready`, which is left to whoever needs it where `lazily`,
    or where there is a `remake`.
    """
    compiling.check_binary(device.quirks, source, binary)
    built = BuiltProgram(device, source, binary=binary, remake=remake)
    if not (lazily or remake):
        built.ready()
    return built


def _from_binary(device: Device, source: SourceProgram, binary: bytes) -> Any:
    opencl = cl()
    try:
        program = compiling.build_binary(device.context, compiling.addressed(device, binary))
        found = program.kernel_names
        if source.entry not in found:
            raise BuildError(f"the binary has no kernel '{source.entry}', only {found}")
        if device.quirks.compares_binary and program.binary() != binary:
            raise BuildError(
                f"{source.entry}: the driver made another binary of it, so it is one of "
                f"another device or driver than {device.info.full_name}"
            )
        kernel = opencl.Kernel(program, source.entry)
        compiling.check_group_size(device.cl, kernel, source)
    except opencl.Error as error:
        if error.is_trouble:
            raise
        raise BuildError(f"{source.entry}: the driver refused the binary: {error}") from error
    return program


def _in_processes(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int,
    progress: Progress | None,
    seconds: float,
) -> list[BuiltProgram | BuildError]:
    from clinfer.device import workers

    results: list[BuiltProgram | BuildError] = []
    made = workers.pool_of(device).build(sources, jobs, progress, seconds)
    for source, binary in zip(sources, made, strict=True):
        if not isinstance(binary, BuildError):
            results.append(_attempt_load(device, source, binary))
        else:
            results.append(binary)
    return results


def _attempt_load(
    device: Device, source: SourceProgram, binary: bytes
) -> BuiltProgram | BuildError:
    try:
        return load(device, source, binary, lazily=is_lost())
    except BuildError as error:
        return error


def _in_threads(
    device: Device, sources: Sequence[SourceProgram], jobs: int, progress: Progress | None
) -> list[BuiltProgram | BuildError]:
    """When interrupted, no other program is started, and what is being built is not waited for.

    Raises `OSError` where no thread can be started.
    """
    from clinfer.device.workers import started

    results: dict[int, BuiltProgram | BuildError] = {}
    waiting = deque(range(len(sources)))

    def work() -> None:
        with suppress(IndexError):  # another thread may take the last one
            while waiting:
                index = waiting.popleft()
                results[index] = _attempt(device, sources[index], progress)

    pool = executor(jobs, "clinfer-build")
    try:
        for thread in started(pool, work, jobs):
            thread.result()
    finally:
        waiting.clear()
        pool.shutdown(wait=False, cancel_futures=True)
    return [results[index] for index in range(len(sources))]


def _attempt(
    device: Device, source: SourceProgram, progress: Progress | None
) -> BuiltProgram | BuildError:
    start = perf_counter()
    try:
        with driver_errors(device.info):
            program = compiling.compile_source(device.context, source, device.quirks)
            built = BuiltProgram(device, source, program)
            compiling.check_group_size(device.cl, built.kernel(), source)
    except BuildError as error:
        return error
    finally:
        _LOG.debug("kernel '%s': the compiler took %.2f s", source.entry, perf_counter() - start)
        if progress is not None:
            progress(source.entry)
    return built


def _jobs(jobs: int | None) -> int:
    return jobs or config.COMPILE_JOBS.get() or usable_cores()
