"""Flips one bit at random offsets of cache entries, and compiles and runs a model each time.

    python tools/bitflips.py [MODEL] [--device CPU GPU] [--flips 2000] [--seed 0]

For the CPU plugin the entry is a compiled model (blob), for the GPU plugin the entry of a kernel
(the largest one). After each flip the model is loaded through the cache and run: the answer must
have the same bits as before, whatever was found. A blob is also given to `import_model`, which must
refuse it with a `BlobError`. Each device has a process of its own, so that a crash is counted, not
suffered. Exit code 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits.onnx"


def main() -> int:
    """Runs one process per device, prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=DIGITS)
    parser.add_argument("--device", nargs="+", choices=("CPU", "GPU"), default=["CPU", "GPU"])
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(flip_all(options.model, options.device[0], options.flips, options.seed)))
        return 0
    bad = 0
    for device in options.device:
        command = [sys.executable, __file__, str(options.model), "--device", device]
        command += ["--flips", str(options.flips), "--seed", str(options.seed), "--inside"]
        done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            print(f"{device}: the process ended with {done.returncode}")
            bad += 1
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{device}: " + ", ".join(f"{value} {name}" for name, value in found.items()))
        bad += found["wrong answers"] + found["flips not noticed"] + found["blobs not refused"]
    return 1 if bad else 0


def environment() -> dict[str, str]:
    """A GPU is PoCL presented as one, unless the environment names another platform."""
    return {
        "CLINFER_GPU_PLATFORM": "Portable",
        **os.environ,
        "CLINFER_LOG": "off",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def flip_all(model: Path, device: str, flips: int, seed: int) -> dict[str, int]:
    """What came of each flip, counted."""
    picker = random.Random(seed)
    found = {"flips": 0, "wrong answers": 0, "flips not noticed": 0, "blobs not refused": 0}
    with tempfile.TemporaryDirectory(prefix="clinfer-bitflips-") as folder:
        inputs = sample(model)
        right, compiled = answer(model, device, folder, inputs)
        files = [f for f in (Path(folder) / "entries").rglob("*") if f.is_file()]
        entry = max(files, key=lambda file: file.stat().st_size)
        content = entry.read_bytes()
        for _ in range(flips):
            damaged = bytearray(content)
            damaged[picker.randrange(len(content))] ^= 1 << picker.randrange(8)
            entry.write_bytes(damaged)
            found["flips"] += 1
            if device == "CPU":
                found["blobs not refused"] += not refuses(bytes(damaged), device)
            result, compiled = answer(model, device, folder, inputs)
            found["wrong answers"] += result != right
            is_left = entry.exists() and entry.read_bytes() == damaged
            found["flips not noticed"] += is_left and not compiled.programs_built
    return found


def answer(model: Path, device: str, folder: str, inputs: dict[str, Any]) -> tuple[bytes, Any]:
    """The bits of the results, by a Core that has seen nothing yet."""
    import clinfer

    core = clinfer.Core()
    core.set_property({"CACHE_DIR": folder})
    compiled = core.compile_model(model, device)
    results = compiled(inputs).to_tuple()
    return b"".join(np.ascontiguousarray(value).tobytes() for value in results), compiled


def refuses(blob: bytes, device: str) -> bool:
    """Whether a damaged blob is refused as it should."""
    import clinfer

    try:
        clinfer.Core().import_model(blob, device)
    except clinfer.BlobError:
        return True
    return False


def sample(model: Path) -> dict[str, Any]:
    """The sample inputs beside the model, else random ones."""
    import clinfer
    from clinfer.cli.common import inputs_for

    beside = model.with_suffix(".npz")
    files = [str(beside)] if beside.is_file() else []
    return inputs_for(clinfer.Core().read_model(model).inputs, files)


if __name__ == "__main__":
    sys.exit(main())
