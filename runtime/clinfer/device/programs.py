"""OpenCL programs: built from source, in parallel where that helps, and loaded from binaries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from clinfer.device.opencl import cl
from clinfer.errors import BuildError

if TYPE_CHECKING:
    from clinfer.device.discover import Device

STANDARD = "-cl-std=CL1.2"
Progress = Callable[[str], None]
_ENVIRONMENT = Lock()


@dataclass(frozen=True)
class SourceProgram:
    """An OpenCL C text with one kernel, `entry`, always launched with groups of `local_size`."""

    source: str
    options: str
    entry: str
    local_size: tuple[int, ...] = (1,)

    @property
    def all_options(self) -> list[str]:
        """The build options, with the language's version."""
        return f"{STANDARD} {self.options}".split()


class BuiltProgram:
    """A program ready on its device."""

    def __init__(self, program: Any, source: SourceProgram, binary: bytes | None = None) -> None:
        self._program = program
        self._source = source
        self._binary = binary

    @property
    def entry(self) -> str:
        """The kernel's name."""
        return self._source.entry

    def kernel(self) -> Any:
        """A new kernel object, with arguments of its own."""
        return cl().Kernel(self._program, self.entry)

    def binary(self) -> bytes:
        """The device's binary of the program; whoever loads it compiles nothing."""
        if self._binary is None:
            self._binary = final_binary(self._program, self._source.local_size)
        return self._binary


def build(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[BuiltProgram]:
    """Builds programs: in `jobs` threads, or worker processes where the driver holds a lock.

    Raises `BuildError` with the kernel's name, the driver's log and the numbered source.
    """
    count = min(jobs or 1, len(sources))
    if count < 2:
        return [_build(device, source, progress) for source in sources]
    if device.quirks.threads_build:
        with ThreadPoolExecutor(count, "clinfer-build") as pool:
            return list(pool.map(lambda source: _build(device, source, progress), sources))
    from clinfer.device.workers import build_binaries

    binaries = build_binaries(device, sources, count, progress)
    return [load(device, s, binary) for s, binary in zip(sources, binaries, strict=True)]


def load(device: Device, source: SourceProgram, binary: bytes) -> BuiltProgram:
    """A program from its binary. Raises `BuildError` where the driver refuses it."""
    opencl = cl()
    try:
        program = opencl.Program(device.context, [device.cl], [binary]).build()
        found = program.get_info(opencl.program_info.KERNEL_NAMES)
    except (opencl.Error, RuntimeError) as error:
        raise BuildError(f"{source.entry}: the driver refused the binary: {error}") from error
    if source.entry not in found.split(";"):
        raise BuildError(f"the binary has no kernel '{source.entry}', only {found!r}")
    return BuiltProgram(program, source, binary)


def compile_source(context: Any, source: SourceProgram) -> Any:
    """The pyopencl program of a source. Raises `BuildError`."""
    opencl = cl()
    program = opencl.Program(context, source.source)
    try:
        program.build(options=source.all_options)
    except (opencl.Error, RuntimeError) as error:
        raise BuildError(
            f"kernel '{source.entry}' does not build:\n{error}\n{numbered(source.source)}"
        ) from error
    return program


def final_binary(program: Any, local_size: Sequence[int]) -> bytes:
    """The binary with the machine code for groups of that size in it.

    PoCL compiles per group size at the first launch and stores only the code for any size, unless
    POCL_BINARY_SPECIALIZE_WG names a size: 'x-y-z', no global offset, a grid below 65,536. It reads
    the variable when the binary is asked for. Other drivers do not know it.
    """
    sizes = [*local_size, 1, 1][:3]
    name = "POCL_BINARY_SPECIALIZE_WG"
    with _ENVIRONMENT:
        before = os.environ.get(name)
        os.environ[name] = "-".join(map(str, sizes)) + "-goffs0-smallgrid"
        try:
            return bytes(program.get_info(cl().program_info.BINARIES)[0])
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def numbered(source: str) -> str:
    """The text with line numbers, as drivers' logs name them."""
    return "\n".join(f"{i:4} {line}" for i, line in enumerate(source.splitlines(), start=1))


def _build(device: Device, source: SourceProgram, progress: Progress | None) -> BuiltProgram:
    built = BuiltProgram(compile_source(device.context, source), source)
    if progress is not None:
        progress(source.entry)
    return built
