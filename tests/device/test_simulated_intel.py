"""The GPU plugin against Intel's real GPU driver, with a GPU that is not there.

Kernels do not execute, so results are not looked at: devices, limits, builds, binaries and the
cache are. Skipped where the driver package is not installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clinfer.cli import main
from clinfer.device.simulated import PRODUCTS, driver_library, environment, product_of
from clinfer.errors import DeviceError
from clocks import LIMIT

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.onnx"))
needs_driver = pytest.mark.skipif(
    driver_library() is None, reason="Intel's GPU driver is not installed (intel-opencl-icd)"
)


def clinfer(tmp_path: Path, product: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process that sees the simulated GPU."""
    added = environment(product, tmp_path / f"icd-{product}")
    return subprocess.run(
        [sys.executable, "-m", "clinfer", *arguments],
        env={**os.environ, **added},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def test_names_of_products():
    assert product_of("intel:dg2") == "dg2"
    assert product_of("GPU") is None
    assert len(PRODUCTS) == 13
    with pytest.raises(DeviceError, match="intel:voodoo"):
        product_of("intel:voodoo")


def test_commands_that_execute_are_refused(capsys, tmp_path):
    assert main(["run", str(MODELS[0]), "--device", "intel:dg2"]) == 1
    assert "executes nothing" in capsys.readouterr().err


@needs_driver
def test_the_device_is_a_gpu_with_its_limits(tmp_path):
    done = clinfer(tmp_path, "dg2", "devices", "--json")
    assert done.returncode == 0, done.stderr
    gpu = next(row for row in json.loads(done.stdout) if row["device"] == "GPU")
    assert "Intel" in gpu["name"]
    assert "EXPORT_IMPORT" not in gpu["capabilities"]


@needs_driver
def test_every_kernel_of_the_set_builds_and_a_new_process_builds_nothing(tmp_path):
    cache = str(tmp_path / "cache")
    models = [str(path) for path in MODELS]
    arguments = ("warm", *models, "--device", "GPU", "--cache-dir", cache, "--json")
    first = clinfer(tmp_path, "dg2", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert sum(row["built"] for row in json.loads(first.stdout)["models"]) > 10
    second = clinfer(tmp_path, "dg2", *arguments)
    assert [row["built"] for row in json.loads(second.stdout)["models"]] == [0] * len(models)


@needs_driver
def test_binaries_of_another_device_are_not_taken(tmp_path):
    arguments = ("warm", str(MODELS[0]), "--device", "GPU", "--cache-dir", str(tmp_path / "c"))
    counts = []
    for product in ("dg2", "tgllp"):
        done = clinfer(tmp_path, product, *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        counts.append(json.loads(done.stdout)["models"][0]["built"])
    assert counts[0] == counts[1] > 0


@needs_driver
def test_warm_for_a_gpu_that_is_not_there(tmp_path, capfd):
    arguments = ["warm", str(MODELS[0]), "--device", "intel:dg2"]
    assert main([*arguments, "--cache-dir", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["failed"] == 0


@needs_driver
def test_a_damaged_entry_is_rebuilt(tmp_path):
    cache = tmp_path / "c"
    arguments = ("warm", str(MODELS[0]), "--device", "GPU", "--cache-dir", str(cache), "--json")
    clinfer(tmp_path, "dg2", *arguments)
    entry = next(p for p in (cache / "entries").rglob("*") if p.is_file())
    content = bytearray(entry.read_bytes())
    content[-20] ^= 1
    entry.write_bytes(content)
    done = clinfer(tmp_path, "dg2", *arguments)
    assert json.loads(done.stdout)["models"][0]["built"] == 1


@needs_driver
def test_a_lock_file_of_the_real_gpu_names_the_simulated_one(tmp_path, capfd):
    lock = tmp_path / "gpu.lock"
    assert main(["devices", "--device", "intel:skl", "--lock", str(lock)]) == 0
    document = json.loads(lock.read_text())
    real = {"full_name": "Intel(R) HD Graphics 530", "is_simulated": False, "name": "GPU.0"}
    document["devices"][0] |= real
    lock.write_text(json.dumps(document))
    model, cache = str(MODELS[0]), str(tmp_path / "c")
    named = ["--device", "intel:skl", "--device-lock", str(lock), "--cache-dir", cache]
    assert main(["warm", model, *named]) == 0
    assert main(["verify", model, "--device", f"@{lock}", "--cache-dir", cache]) == 0
    assert main(["verify", model, "--device", "intel:skl", "--cache-dir", cache]) == 4
    assert main(["warm", model, "--device", "intel:tgllp", *named[2:]]) == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "the locked device is not here" in said
    assert len(said) < 1000


@needs_driver
def test_a_terminated_command_leaves_nothing_running(tmp_path):
    cache = tmp_path / "c"
    arguments = ["warm", *map(str, MODELS), "--device", "intel:dg2", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clinfer", *arguments, "--cache-dir", str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end and not cache.exists():
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=LIMIT)  # whoever is left would keep the pipe open
    assert process.returncode == 128 + signal.SIGTERM
