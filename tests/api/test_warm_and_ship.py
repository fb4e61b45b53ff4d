"""The documented way from a warm cache here to a run without compiling there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clinfer.device.simulated import driver_library
from clocks import LIMIT
from platforms import POCL, platform

ROOT = Path(__file__).parent.parent.parent
SIMULATED = pytest.param(
    "intel:dg2",
    marks=pytest.mark.skipif(
        driver_library() is None, reason="Intel's GPU driver is not installed (intel-opencl-icd)"
    ),
)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize("device", ["CPU", "GPU", SIMULATED])
def test_warm_verify_pack_unpack_run(tmp_path: Path, device: str) -> None:
    added = {
        "CLINFER": f"{shlex.quote(sys.executable)} -m clinfer",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CLINFER_CPU_PLATFORM": platform() if device in ("CPU", "GPU") else POCL,
    }
    if device == "GPU":
        added["CLINFER_GPU_PLATFORM"] = platform()
    done = subprocess.run(
        ["sh", "examples/warm_and_ship.sh", "examples/digits.onnx", device, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **added},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("complete") == 2
    assert ("accuracy" in done.stdout) == (device in ("CPU", "GPU")), done.stdout
    assert (tmp_path / "here" / "key").stat().st_mode & 0o777 == 0o600
