"""Runs models' GPU schedules under Oclgrind: accesses outside buffers, races, results.

    apt-get install oclgrind
    python tools/check_memory.py                      # the small models of tests/models
    python tools/check_memory.py tests/models/gpt2.onnx

Oclgrind interprets kernels, so a model takes seconds to minutes. Its exit status says nothing; what
it notices is in its log, printed here. Each model has a process of its own, between guard bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (Path("/usr/lib/oclgrind"), Path("/usr/local/lib"))
LIBRARY = "liboclgrind-rt-icd.so"

CHILD = """
import sys
import numpy as np
import guards
guards.install()
import clinfer
path = sys.argv[1]
stored = np.load(path[:-5] + ".npz")
model = clinfer.Core().compile_model(path, "GPU")
results = model({port.name: stored["in:" + port.name] for port in model.inputs})
for port in model.outputs:
    wanted = stored["out:" + port.name]
    np.testing.assert_allclose(results[port.name], wanted, rtol=1e-2, atol=1e-3)
"""


def library() -> Path:
    """Oclgrind's OpenCL driver."""
    for folder in LIBRARIES:
        if (folder / LIBRARY).is_file():
            return folder / LIBRARY
    raise SystemExit(f"no {LIBRARY} in {', '.join(map(str, LIBRARIES))}: install oclgrind")


def check(model: Path, folder: Path) -> bool:
    """Whether a model's results are right and Oclgrind has nothing to say."""
    (folder / "oclgrind.icd").write_text(f"{library()}\n")
    log = folder / f"{model.stem}.log"
    paths = [str(ROOT / name) for name in ("tests", "runtime", "kernels")]
    environment = {
        **os.environ,
        "OCL_ICD_VENDORS": str(folder),
        "CLINFER_GPU_PLATFORM": "Oclgrind",
        "CLINFER_CACHE_DIR": "",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNIFORM_WRITES": "1",
        "OCLGRIND_LOG": str(log),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(model.resolve())], env=environment, check=False
    )
    said = log.read_text().strip() if log.exists() else ""
    fine = run.returncode == 0 and not said
    print(f"{model.name}: {'nothing noticed' if fine else f'exit status {run.returncode}'}")
    if said:
        print(said)
    return fine


def main() -> int:
    """The command line; exit status 1 where something was noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="with inputs and results in MODEL.npz")
    chosen = parser.parse_args().models or sorted((ROOT / "tests" / "models").glob("*.onnx"))
    with tempfile.TemporaryDirectory(prefix="clinfer-oclgrind-") as folder:
        fine = [check(model, Path(folder)) for model in chosen]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
