"""Warming for Intel GPUs that are elsewhere, with ocloc; here a program that answers as it does."""

from __future__ import annotations

import json
import sys

import fake_ocloc
import onnx
import pytest
from fake_ocloc import DRIVER, zebin

from clinfer import Core
from clinfer.cli import main
from clinfer.device.lock import locked_device
from clinfer.device.ocloc import offline_device
from clinfer.device.sources import SourceProgram
from clinfer.device.zebin import described, is_zebin
from clinfer.errors import BuildError, DeviceError

B580 = {
    "name": "GPU.0",
    "full_name": "Intel(R) Arc(TM) B580 Graphics",
    "vendor": "Intel(R) Corporation",
    "kind": "gpu",
    "platform": "Intel(R) OpenCL Graphics",
    "platform_version": "OpenCL 3.0",
    "device_version": "OpenCL 3.0 NEO",
    "driver_version": DRIVER,
    "language": "OpenCL C 1.2",
    "compute_units": 160,
    "global_mem": 0,
    "max_alloc": 0,
    "local_mem": 131072,
    "max_work_group": 1024,
    "mem_base_align": 128,
    "vector_width": 1,
    "extensions": ["cl_intel_required_subgroup_size", "cl_intel_subgroups", "cl_khr_fp16"],
    "features": [],
    "subgroup_sizes": [16, 32],
    "fp64": True,
    "processor": "",
    "is_simulated": False,
    "cpu_target": "",
    "capability": [0, 0],
    "ip_version": [20, 1, 4],
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The program, and the file in which its compilations are noted."""
    log = tmp_path / "log"
    program = tmp_path / "ocloc"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -S "{fake_ocloc.__file__}" "{log}" "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("CLINFER_OCLOC", str(program))
    return log


@pytest.fixture
def lock(tmp_path):
    """Writes a lock file of GPUs that differ from a B580 as said."""

    def write(*changes):
        path = tmp_path / "gpu.lock"
        path.write_text(json.dumps({"format": 1, "devices": [B580 | c for c in changes or ({},)]}))
        return path

    return write


@pytest.fixture
def model(tmp_path):
    """The path of a model with one product."""
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [64, 64]) for name in "xy")
    node = onnx.helper.make_node("MatMul", ["x", "x"], ["y"])
    path = tmp_path / "product.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "one", [x], [y])), path)
    return str(path)


def test_a_cache_for_a_gpu_that_is_elsewhere(fake, lock, model, tmp_path, capfd):
    cache = ["--cache-dir", str(tmp_path / "c")]
    warm = ["warm", model, "--device", "intel:bmg", "--device-lock", str(lock()), *cache, "--json"]
    assert main(warm) == 0
    (row,) = json.loads(capfd.readouterr().out)["models"]
    commands = fake.read_text().splitlines()
    assert row["built"] == len(commands) > 0
    # Compiled for the device's own stepping, in the language and with the options of a build here.
    assert all("-device 20.1.4 -options -cl-std=CL1.2" in command for command in commands)
    assert main(["verify", model, "--device", f"@{lock()}", *cache]) == 0
    assert main(warm) == 0
    assert len(fake.read_text().splitlines()) == len(commands)
    # Another name, driver or limit is another key: nothing of the cache is that device's.
    for change in ({"full_name": "B570"}, {"driver_version": "26.28.1"}):
        assert main(["verify", model, "--device", f"@{lock(change)}", *cache]) == 4


@pytest.mark.parametrize(
    ("product", "change", "said"),
    [
        ("lnl", {}, "is of architecture 20.1.4, lnl of 20.4.4"),
        ("voodoo", {}, "knows no product 'voodoo'"),
        ("bmg,lnl", {}, "knows no product"),
        ("-o", {}, "knows no product"),
        ("bmg", {"driver_version": "26.20.1"}, "has driver 26.20.1, .* is of 26.27.039122"),
        ("bmg", {"ip_version": [20, 1, 9]}, "does not know architecture 20.1.9"),
        ("xe2", {"ip_version": []}, "name the product more exactly"),
        ("bmg", {"platform": "NVIDIA CUDA"}, "not of Intel's GPU driver"),
        ("bmg", {"name": "CPU"}, "there is no GPU"),
    ],
)
def test_what_is_not_known_is_refused(fake, lock, product, change, said):
    with pytest.raises(DeviceError, match=said):
        offline_device(product, lock(change))


def test_without_a_lock_file_or_the_program_nothing_is_guessed(fake, model, monkeypatch, capsys):
    assert main(["warm", model, "--device", "intel:bmg", "--cache-dir", "c"]) == 1
    assert "clinfer devices --device GPU --lock FILE" in capsys.readouterr().err
    monkeypatch.delenv("CLINFER_OCLOC")
    monkeypatch.setenv("PATH", "")
    assert main(["warm", model, "--device", "intel:bmg", "--cache-dir", "c"]) == 1
    assert "CLINFER_OCLOC" in capsys.readouterr().err


def test_the_gpu_of_the_product_is_chosen_among_several(fake, lock):
    other = {"name": "GPU.0", "full_name": "Arc 140V", "ip_version": [20, 4, 4]}
    chosen = offline_device("bmg", lock(other, {"name": "GPU.1"}))
    assert chosen.info.full_name == B580["full_name"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__kernel void k() { broken; }", "undeclared identifier 'broken'"),
        ("__kernel void k() { sub_group_sum(); }", "lacks sub_group_sum"),
        ("__kernel void other() {}", "a binary of other"),
    ],
)
def test_programs_that_cannot_be_used(fake, lock, text, said):
    made = offline_device("bmg", lock()).compile(SourceProgram(text, "", "k"))
    assert isinstance(made, BuildError)
    assert said in str(made)


def test_code_of_another_architecture_is_seen(fake, lock, monkeypatch):
    device = offline_device("bmg", lock())
    monkeypatch.setattr(type(device), "_target", "bmg")
    made = device.compile(SourceProgram("__kernel void k() {}", "", "k"))
    assert "made code for 20.1.0, not 20.1.4" in str(made)


def test_cut_binaries_are_errors_of_their_own():
    whole = zebin("k", (20, 1, 4))
    assert is_zebin(whole)
    assert described(whole) == (("k",), (20, 1, 4), ())
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=None):
            described(whole[:length])


def test_a_locked_device_multiplies_as_the_device_itself(tmp_path, model, lock):
    """NVIDIA's float32 products are 3xTF32 unless told otherwise, for a lock file too."""
    h200 = {"platform": "NVIDIA CUDA", "vendor": "NVIDIA Corporation", "full_name": "NVIDIA H200"}
    path = lock({**h200, "capability": [9, 0], "extensions": [], "ip_version": []})
    found = Core().coverage(model, locked_device(path), {"CACHE_DIR": str(tmp_path / "c")})
    assert any("3xtf32" in gap.what for gap in found.gaps)
