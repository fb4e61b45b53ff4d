"""Commands for a GPU that is not in the machine: run again in a process that sees it simulated."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clinfer.errors import DeviceError

_ALLOWED = ("warm", "verify", "pack", "explain", "devices")


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
        with subprocess.Popen(command, env={**os.environ, **added}) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal has told the process too; it ends by itself
                return process.wait()
