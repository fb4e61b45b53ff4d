"""The full-size model set against ONNX Runtime, float32, on a CPU and with GPU schedules.

    python tools/check_models.py [zoo/NAME.onnx ...] [--device CPU GPU] [--json FILE]

Prints per model and device the largest error relative to the output's largest value, the host
steps, and how many sizes ran with the same programs. Exit code 1 where an
error exceeds 1e-3 or a host step is found. The models come from tools/zoo.py; CLINFER_GPU_PLATFORM
defaults to PoCL. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import clinfer

ROOT = Path(__file__).resolve().parent.parent
BOUND = 1e-3


def main() -> int:
    """Checks and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--device", nargs="+", default=["CPU", "GPU"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("CLINFER_GPU_PLATFORM", "Portable")
    rows = []
    for path in options.models or sorted((ROOT / "zoo").glob("*.onnx")):
        for device in options.device:
            rows.append(check(path, device))
            row = rows[-1]
            print(
                f"{row['model']:22} {device:4} error {row['error']:.1e}  "
                f"programs {row['programs']:3}  launches {row['launches']:4}  "
                f"host steps {row['host_steps']}  sizes {row['sizes']}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 1 if any(row["error"] > BOUND or row["host_steps"] for row in rows) else 0


def check(path: Path, device: str) -> dict[str, Any]:
    """The model on one device, at its sample's size or, where sizes are dynamic, at two sizes."""
    with np.load(path.with_suffix(".npz")) as file:
        sample = {k.removeprefix("in:"): file[k] for k in file.files if k.startswith("in:")}
    model = clinfer.Core().compile_model(path, device)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dynamic = any(isinstance(d, str) for port in model.inputs for d in port.shape or ())
    sizes = [sample]
    if dynamic:
        sizes = [{k: np.ascontiguousarray(v[:1, :n]) for k, v in sample.items()} for n in (64, 40)]
    errors = [error(model, session, inputs) for inputs in sizes]
    return {
        "model": path.stem,
        "device": device,
        "error": max(errors),
        "programs": len(model.plan.programs),
        "launches": len(list(model.plan.launches)),
        "host_steps": len(model.host_steps),
        "sizes": len(sizes),
    }


def error(model: Any, session: Any, inputs: dict[str, np.ndarray]) -> float:
    """The largest error of any output relative to its largest value."""
    names = [output.name for output in session.get_outputs()]
    found = model(inputs)
    expected = zip(names, session.run(None, inputs), strict=True)
    return max(float(np.abs(found[n] - v).max() / np.abs(v).max()) for n, v in expected)


if __name__ == "__main__":
    sys.exit(main())
