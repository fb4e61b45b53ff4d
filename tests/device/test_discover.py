"""Device names, AUTO, the choice of platforms, and what targets say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clinfer.device import discover
from clinfer.device.quirks import quirks_of
from clinfer.device.target import derive_target
from clinfer.errors import DeviceError

FACTS = {
    "name": "",
    "full_name": "Device",
    "vendor": "Vendor",
    "kind": "gpu",
    "platform": "Platform",
    "platform_version": "OpenCL 3.0",
    "device_version": "OpenCL 3.0",
    "driver_version": "1",
    "language": "OpenCL C 1.2",
    "compute_units": 8,
    "global_mem": 1 << 30,
    "max_alloc": 1 << 28,
    "local_mem": 65536,
    "max_work_group": 1024,
    "mem_base_align": 128,
    "vector_width": 1,
    "extensions": frozenset(),
    "features": frozenset(),
    "subgroup_sizes": (),
    "fp64": True,
}


def info(**changes):
    return discover.DeviceInfo(**{**FACTS, **changes})


class Platform:
    def __init__(self, name, *devices):
        self.name = name
        self.devices = devices


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine with the given platforms; devices are DeviceInfo."""
    for name in ("CLINFER_GPU_PLATFORM", "CLINFER_CPU_PLATFORM"):
        monkeypatch.delenv(name, raising=False)

    def make(*platforms):
        monkeypatch.setattr(discover, "_platforms", lambda: list(platforms))
        monkeypatch.setattr(
            discover, "_devices", lambda p: [(d.named(""), None) for d in p.devices]
        )

    return make


POCL = Platform(
    "Portable Computing Language", info(kind="cpu", platform="Portable Computing Language")
)
INTEL = Platform("Intel(R) OpenCL", info(kind="cpu", platform="Intel(R) OpenCL"))
NVIDIA = Platform("NVIDIA CUDA", info(full_name="A", platform="NVIDIA CUDA"))
TWO = Platform("AMD", info(full_name="B"), info(full_name="C"))


def names():
    return [(d.name, d.full_name, d.platform) for d in discover.list_devices()]


def test_one_gpu_is_gpu_and_several_are_numbered(machine):
    machine(POCL, NVIDIA)
    assert [n[0] for n in names()] == ["CPU", "GPU"]
    machine(NVIDIA, TWO)
    assert [(n[0], n[1]) for n in names()] == [("GPU.0", "A"), ("GPU.1", "B"), ("GPU.2", "C")]


def test_the_best_known_cpu_runtime_is_chosen_unless_named(machine, monkeypatch):
    machine(POCL, INTEL)
    assert names()[0][2] == "Intel(R) OpenCL"
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "portable")
    assert names()[0][2] == "Portable Computing Language"
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "nothing like it")
    with pytest.raises(DeviceError, match="nothing like it"):
        names()


def test_a_platform_presented_as_gpu_stays_the_cpu_too(machine, monkeypatch):
    machine(POCL)
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", "Portable")
    assert [n[0] for n in names()] == ["CPU", "GPU"]


def test_no_device_and_unknown_names_say_what_to_do(machine):
    machine()
    with pytest.raises(DeviceError, match=r"clinfer\[pocl\]"):
        names()
    machine(POCL)
    with pytest.raises(DeviceError, match="'GPU'; devices here: CPU"):
        discover.open_device("GPU")
    with pytest.raises(DeviceError, match="'TPU'"):
        discover.open_device("TPU")


def test_targets_use_what_is_reported_and_no_more():
    quirks = quirks_of("NVIDIA CUDA")
    target = derive_target(info(name="GPU"), quirks)
    assert (target.cls, target.dialect, target.local_mem) == ("gpu", "nvidia", 65536)
    assert not target.fp16
    assert target.subgroup_sizes == ()
    intel = info(
        name="GPU",
        extensions=frozenset({"cl_intel_subgroups", "cl_khr_fp16"}),
        subgroup_sizes=(8, 16, 32),
    )
    target = derive_target(intel, quirks)
    assert target.fp16
    assert target.subgroup_sizes == (8, 16, 32)
    assert derive_target(info(name="CPU", kind="cpu"), quirks).cls == "cpu"


def test_importing_clinfer_opens_no_opencl_and_reads_no_onnx():
    code = (
        "import sys, clinfer, clinfer.properties, clinfer.device\n"
        "print([m for m in ('pyopencl', 'onnx', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
