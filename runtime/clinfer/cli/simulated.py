"""Commands for a GPU that is not in the machine: run again in a process that sees it simulated."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clinfer import config
from clinfer.errors import DeviceError

_CRASHES = tuple(-number for number in (signal.SIGSEGV, signal.SIGABRT))
_COMPILING = ("warm",)
_ALLOWED = ("warm", "verify", "pack", "explain", "devices")


def run_absent(given: Sequence[str], arguments: argparse.Namespace, device: str) -> int:
    """A command for 'intel:PRODUCT': simulated where the driver can, else with ocloc.

    Returns the exit code. Raises `DeviceError` for what can be done with neither.
    """
    from clinfer.device.ocloc import find, offline_device
    from clinfer.device.simulated import PREFIX, simulates

    product = device[len(PREFIX) :].lower()
    lock: Path | None = getattr(arguments, "device_lock", None)
    is_simulated = config.OCLOC.get() is None and simulates(product)
    if is_simulated or find() is None:
        return run_simulated(given, device, lock)
    if given[0] not in _COMPILING:
        raise DeviceError(
            f"{device} is only compiled for, by {' and '.join(_COMPILING)}; other commands take "
            "the lock file alone, --device @FILE"
        )
    arguments.offline = offline_device(product, lock)
    code: int = arguments.run(arguments)
    return code


def run_simulated(arguments: Sequence[str], device: str, lock: Path | None = None) -> int:
    """The command's exit code; the GPU has the name that the first GPU of the lock file has.

    Raises `DeviceError` for a command that would execute kernels, and for a bad lock file.
    """
    from clinfer.device.lock import locked_device
    from clinfer.device.simulated import environment, product_of

    product = product_of(device)
    assert product is not None
    if not arguments or arguments[0] not in _ALLOWED:
        raise DeviceError(
            f"{device} is simulated and executes nothing; it is for {', '.join(_ALLOWED)}"
        )
    name = None if lock is None else locked_device(lock, "GPU").info.full_name
    replaced = ["GPU" if a == device else a for a in arguments]
    replaced = ["--device=GPU" if a == f"--device={device}" else a for a in replaced]
    with tempfile.TemporaryDirectory(prefix="clinfer-simulated-") as folder:
        added = environment(product, Path(folder), name)
        command = [sys.executable, "-m", "clinfer", *replaced]
        variables = {**os.environ, **added}
        with subprocess.Popen(command, env=variables) as process, _terminated_together(process):
            try:
                code = process.wait()
            except KeyboardInterrupt:  # the terminal has told it too; it ends by itself
                code = process.wait()
    if code in _CRASHES:
        raise DeviceError(
            f"the driver crashed when it was asked for a simulated {device}, as releases of 2026 "
            "do: name the ocloc of its version with CLINFER_OCLOC, and give --device-lock"
        )
    return code if code >= 0 else 128 - code


@contextmanager
def _terminated_together(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A SIGTERM that this process gets ends the other one, and with it this one's waiting."""

    def terminate(number: int, frame: object) -> None:
        process.terminate()

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread, which alone has handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
