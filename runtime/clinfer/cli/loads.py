"""`clinfer bench --cold`: how long a model takes to load with every cache empty, and then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinfer.errors import ClinferError

_LOAD = """
import json, sys, time
from pathlib import Path
import clinfer
from clinfer.cli.shapes import reshaped
model, device, folder, shapes = sys.argv[1:]
core = clinfer.Core()
core.set_property({"CACHE_DIR": folder})
core.get_property(device, "FULL_DEVICE_NAME")
start = time.perf_counter()
compiled = core.compile_model(reshaped(core, Path(model), json.loads(shapes)), device)
print(json.dumps([time.perf_counter() - start, compiled.programs_built]))
"""


def loads(model: Path, device: str, shapes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Seconds of compile_model in a new process, 'cold' and 'warm', and how many programs it built.

    Raises `ClinferError` with what the process said where it failed.
    """
    with tempfile.TemporaryDirectory(prefix="clinfer-bench-") as folder:
        cold, built = _load(model, device, shapes, folder)
        warm, _ = _load(model, device, shapes, folder)
    return {"cold": cold, "warm": warm, "built": built}


def _load(
    model: Path, device: str, shapes: Sequence[tuple[str, Any]], folder: str
) -> tuple[float, int]:
    drivers = Path(folder) / "driver"
    drivers.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "POCL_CACHE_DIR": str(drivers),
        "NEO_CACHE_PERSISTENT": "0",
        "CUDA_CACHE_DISABLE": "1",
        "PYOPENCL_NO_CACHE": "1",
    }
    cache = str(Path(folder) / "cache")
    command = [sys.executable, "-c", _LOAD, str(model), device, cache, json.dumps(shapes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ClinferError(f"loading {model} failed in a new process: {said[-1]}")
    seconds, built = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), int(built)
