"""From a source to a program and its binary in this process, with what drivers need for it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from clinfer.device import pocl_binary
from clinfer.device.opencl import cl, environment, pocl_folder
from clinfer.device.quirks import Quirks
from clinfer.device.sources import STANDARD, SourceProgram, failed
from clinfer.errors import BuildError
from clinfer.log import Log

if TYPE_CHECKING:
    from clinfer.device.discover import Device

_LOG = Log("clinfer.device")


def compile_source(
    context: Any, source: SourceProgram, quirks: Quirks, options: tuple[str, ...] = ()
) -> Any:
    """The program of a source.

    Raises `BuildError`, and the binding's error where the device is at fault.
    """
    opencl = cl()
    if quirks.dialect == "pocl":
        _check_linker(source)
    flags = [*source.all_options, *options]
    if quirks.short_header and STANDARD in flags:
        from clinfer.device import pocl_header

        head = pocl_header.declarations(source.source)
        text = f'{head}\n#line 1 "{source.entry}"\n{source.source}'
        try:
            return _build(context, text, [*flags, pocl_header.WITHOUT_HEADER])
        except opencl.Error as error:
            _LOG.debug("%s is compiled with the whole header: %s", source.entry, error)
    try:
        return _build(context, source.source, flags)
    except opencl.Error as error:
        if error.is_trouble:
            raise
        log = f"{error}\n{source.numbered()}"
        _LOG.info("kernel '%s' does not build:\n%s", source.entry, log)
        raise failed(source, log) from error


def _check_linker(source: SourceProgram) -> None:
    """PoCL ends the whole process where its linker cannot be run. Raises `BuildError`."""
    import shutil
    import signal

    if shutil.which("ld") is None:
        raise failed(source, 'error: the executable "ld" doesn\'t exist')
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise BuildError(
            f"kernel '{source.entry}' cannot be built in a process that ignores SIGCHLD, because "
            "PoCL waits for its linker: signal.signal(signal.SIGCHLD, signal.SIG_DFL)"
        )


def compile_to_binary(context: Any, source: SourceProgram, quirks: Quirks) -> bytes:
    """The binary of a source, with the final code in it; one at a time in a process.

    Raises `BuildError`.
    """
    folder = pocl_folder()
    if not quirks.binary_layout or folder is None:
        program = compile_source(context, source, quirks)
        # Some drivers finish the code with the first kernel object.
        check_group_size(context.devices[0], cl().Kernel(program, source.entry), source)
        return driver_binary(program, source.local_size)
    before = pocl_binary.program_folders(folder)
    try:
        program = compile_source(context, source, quirks)
        made = pocl_binary.program_folders(folder) - before
        return pocl_binary.final_binary(program, source.group, made)
    except pocl_binary.LayoutError as error:
        _LOG.debug("%s is compiled for groups of any size too: %s", source.entry, error)
    # The option makes it another program for PoCL, which has taken the stub for this one's code.
    program = compile_source(context, source, quirks, ("-DCLINFER_ANY_GROUP",))
    return driver_binary(program, source.local_size)


def driver_binary(program: Any, local_size: tuple[int, ...]) -> bytes:
    """The driver's binary; of PoCL with the code for groups of that size in it.

    PoCL reads the variable when the binary is asked for. Other drivers do not know it. Raises
    `BuildError` where the driver gives none.
    """
    sizes = "-".join(map(str, [*local_size, 1, 1][:3]))
    try:
        with environment(pocl_binary.SPECIALISE, f"{sizes}-goffs0-smallgrid"):
            binary: bytes = program.binary()
    except cl().Error as error:
        raise BuildError(f"the driver gives no binary: {error}") from error
    return binary


def check_binary(quirks: Quirks, source: SourceProgram, binary: bytes) -> None:
    """What can be seen of a binary before a driver touches it. Raises `BuildError`.

    PoCL unpacks files to the paths in it, and follows lengths in it beyond its end.
    """
    if not quirks.binary_layout:
        return
    try:
        pocl_binary.check(binary, quirks.binary_layout)
    except pocl_binary.LayoutError as error:
        raise BuildError(f"{source.entry}: not a binary of PoCL: {error}") from error


def check_group_size(device: Any, kernel: Any, source: SourceProgram) -> None:
    """Raises `BuildError` where the device cannot run the kernel's work-groups.

    A source without a size of groups goes with any.
    """
    if not source.local_size:
        return
    limit = kernel.work_group_limit(device)
    if prod(source.local_size) > limit:
        raise BuildError(
            f"kernel '{source.entry}' has work-groups of {prod(source.local_size)} work-items; "
            f"this device takes {limit} of it"
        )
    required = kernel.required_group(device)
    if any(required) and required != source.group:
        raise BuildError(
            f"kernel '{source.entry}' requires work-groups of {required}, not {source.group}"
        )


def addressed(device: Device, binary: bytes) -> bytes:
    """The binary as this machine's driver takes it, where it was made for a CPU_TARGET."""
    if device.cpu_target is None:
        return binary
    return pocl_binary.addressed(binary, device.found.device_version)


def build_binary(context: Any, binary: bytes) -> Any:
    """The program of a binary. Raises the binding's errors."""
    program = cl().Program.from_binary(context, binary)
    program.build()
    return program


def _build(context: Any, text: str, options: list[str]) -> Any:
    program = cl().Program.from_source(context, text)
    program.build(" ".join(options))
    return program
