"""OpenCL programs: built from source, loaded from binaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinfer.device.opencl import cl
from clinfer.errors import BuildError

if TYPE_CHECKING:
    from clinfer.device.discover import Device

_STANDARD = "-cl-std=CL1.2"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class SourceProgram:
    """An OpenCL C text with one kernel, `entry`."""

    source: str
    options: str
    entry: str


class BuiltProgram:
    """A program ready on its device."""

    def __init__(self, program: Any, entry: str, binary: bytes | None = None) -> None:
        self._program = program
        self._binary = binary
        self.entry = entry

    def kernel(self) -> Any:
        """A new kernel object, with arguments of its own."""
        return cl().Kernel(self._program, self.entry)

    def binary(self) -> bytes:
        """The device's binary of the program."""
        if self._binary is None:
            self._binary = bytes(self._program.get_info(cl().program_info.BINARIES)[0])
        return self._binary


def build(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[BuiltProgram]:
    """Builds programs, in parallel where the driver can.

    Raises `BuildError` with the kernel's name, the driver's log and the numbered source.
    """

    def one(source: SourceProgram) -> BuiltProgram:
        built = _build(device, source)
        if progress is not None:
            progress(source.entry)
        return built

    count = min(jobs or 1, len(sources))
    if count < 2 or not device.quirks.threads_build:
        return [one(source) for source in sources]
    with ThreadPoolExecutor(count, "clinfer-build") as pool:
        return list(pool.map(one, sources))


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
    return BuiltProgram(program, source.entry, binary)


def _build(device: Device, source: SourceProgram) -> BuiltProgram:
    opencl = cl()
    options = f"{_STANDARD} {source.options}".split()
    program = opencl.Program(device.context, source.source)
    try:
        program.build(options=options)
    except (opencl.Error, RuntimeError) as error:
        raise BuildError(
            f"kernel '{source.entry}' does not build on {device.info.full_name}:\n{error}\n"
            f"{_numbered(source.source)}"
        ) from error
    return BuiltProgram(program, source.entry)


def _numbered(source: str) -> str:
    lines = source.splitlines()
    return "\n".join(f"{i:4} {line}" for i, line in enumerate(lines, start=1))
