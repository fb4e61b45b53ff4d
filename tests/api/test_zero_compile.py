"""A warm start compiles nothing, the driver included.

PoCL writes every piece of machine code it makes into its cache folder. In a new process with an
empty folder, giving it a binary unpacks the code that the cache entry holds; nothing else, the
first inference's launches in particular, may add any.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MODELS = Path(__file__).parent.parent / "models"

_CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np
import clinfer
from clinfer.device import programs

def code():
    return {str(p) for p in Path(os.environ["POCL_CACHE_DIR"]).rglob("*.so")}

def unpacking(*args):
    before = code()
    program = from_binary(*args)
    unpacked.update(code() - before)
    return program

unpacked = set()
from_binary, programs._from_binary = programs._from_binary, unpacking
path, device, cache = sys.argv[1:]
model = clinfer.Core().compile_model(path, device, {"CACHE_DIR": cache})
with np.load(Path(path).with_suffix(".npz")) as file:
    inputs = {k[3:]: file[k] for k in file.files if k.startswith("in:")}
    expected = {k[4:]: file[k] for k in file.files if k.startswith("out:")}
found = model(inputs).to_dict()
errors = [float(np.abs(found[k] - v).max() / np.abs(v).max()) for k, v in expected.items()]
print(json.dumps({"built": model.programs_built, "unpacked": sorted(unpacked),
                  "code": sorted(code()), "error": max(errors)}))
"""


def start(device: str, cache: Path, folder: Path, name: str) -> dict:
    """compile_model and an inference in a new process whose driver cache is empty."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(MODELS / f"{name}.onnx"), device, str(cache)],
        env={
            **os.environ,
            "POCL_CACHE_DIR": str(folder),
            "CLINFER_CPU_PLATFORM": "Portable",
            "CLINFER_GPU_PLATFORM": "Portable",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("device", ["CPU", "GPU"])
@pytest.mark.parametrize("name", ["resnet50", "bert_base"])
def test_a_warm_start_makes_no_machine_code(device, name, tmp_path):
    first = start(device, tmp_path / "cache", tmp_path / "driver1", name)
    assert first["built"] > 0
    second = start(device, tmp_path / "cache", tmp_path / "driver2", name)
    assert second["built"] == 0
    assert second["unpacked"], "the driver unpacked no code: it would compile at the launch"
    assert second["code"] == second["unpacked"]
    np.testing.assert_allclose(second["error"], 0, atol=1e-3)
