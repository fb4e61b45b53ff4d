"""Device names, AUTO, the choice of platforms, and what targets say."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clinfer
from clinfer.device import discover
from clinfer.device.opencl import cl
from clinfer.device.quirks import quirks_of, reason_of
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


@pytest.mark.parametrize(
    ("version", "processor", "first"),
    [
        ("OpenCL 3.0 PoCL 3.0", "skylake-avx512/x86-64-v4", "Portable Computing Language"),
        ("OpenCL 3.0 PoCL 3.0", "generic/armv8", "Intel(R) OpenCL"),
        ("OpenCL 3.0 PoCL 7.0", "skylake-avx512/x86-64-v4", "Portable Computing Language"),
        ("OpenCL 3.0 PoCL 5.0", "skylake-avx512/x86-64-v4", "Intel(R) OpenCL"),
    ],
)
def test_pocl_comes_first_where_it_has_the_player(machine, version, processor, first):
    pocl = POCL.devices[0]._replace(platform_version=version, processor=processor)
    machine(INTEL, Platform(pocl.platform, pocl))
    assert names()[0] == ("CPU", pocl.full_name, first)


def test_the_best_known_cpu_runtime_is_chosen_unless_named(machine, monkeypatch):
    machine(POCL, INTEL)
    assert [(n[0], n[2]) for n in names()] == [
        ("CPU", "Intel(R) OpenCL"),
        ("CPU.1", "Portable Computing Language"),
    ]
    assert clinfer.Core().available_devices == ["CPU", "CPU.1"]
    monkeypatch.setattr(discover, "Device", lambda info, handle: info)
    for name, found in (("CPU", "CPU"), ("cpu.0", "CPU"), ("AUTO", "CPU"), ("cpu.1", "CPU.1")):
        assert discover.open_device(name).name == found
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "portable")
    assert [(n[0], n[2]) for n in names()] == [("CPU", "Portable Computing Language")]
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


class BrokenPlatform:
    """A driver that raises whatever it is asked."""

    @property
    def name(self):
        raise cl().Error("broken")

    def get_devices(self):
        raise cl().Error("broken")


class BrokenDevice:
    def __getattr__(self, name):
        raise cl().Error(f"no {name}")


def test_a_broken_driver_is_left_out_with_a_warning(monkeypatch, caplog):
    monkeypatch.delenv("CLINFER_GPU_PLATFORM", raising=False)
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "Portable")
    broken = Platform("Half broken", BrokenDevice())
    broken.get_devices = lambda: broken.devices
    real = discover._platforms()
    monkeypatch.setattr(discover, "_platforms", lambda: [BrokenPlatform(), broken, *real])
    assert any(found[0].startswith("CPU") for found in names())
    assert "gives no devices" in caplog.text
    assert "'Half broken' fails" in caplog.text


def test_no_loader_and_no_pyopencl_say_how_to_install(monkeypatch):
    def no_platform():
        raise cl().Error("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(cl(), "get_platforms", no_platform)
    with pytest.raises(DeviceError, match=r"no OpenCL platform.*clinfer\[pocl\]"):
        discover.list_devices()
    code = (
        "import sys\nsys.modules['pyopencl'] = None\n"
        "from clinfer.device import loader\nloader._ELSEWHERE = ('libnowhere.so',)\n"
        "from clinfer.device.discover import list_devices\nlist_devices()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OpenCL cannot be loaded" in done.stderr
    assert "clinfer[pocl]" in done.stderr


def test_auto_is_the_first_gpu_else_the_cpu(machine, monkeypatch):
    monkeypatch.setattr(discover, "Device", lambda info, handle: info)
    machine(POCL, NVIDIA, TWO)
    assert discover.open_device("auto").name == "GPU.0"
    assert discover.open_device("gpu").full_name == "A"
    machine(POCL, NVIDIA)
    assert discover.open_device("GPU.0").name == "GPU"
    machine(POCL)
    assert discover.open_device("AUTO").name == "CPU"


SMALL = info(full_name="integrated", vendor="Intel(R) Corporation", compute_units=32)
LARGE = info(full_name="card", vendor="Advanced Micro Devices", compute_units=60)
SAME = info(full_name="more memory", vendor="AMD", compute_units=60, global_mem=1 << 34)
NOBODY = info(full_name="simulated", vendor="NVIDIA", compute_units=999, is_simulated=True)


@pytest.mark.parametrize("order", [1, -1])
def test_auto_takes_the_most_capable_whatever_the_order_of_platforms(machine, order):
    machine(*[Platform("P", *[SMALL, LARGE, SAME, NOBODY][::order]), POCL, INTEL][::order])
    by_name = {d.name: d.full_name for d in discover.list_devices()}
    asked = discover.asked_for("AUTO")
    found = [by_name[name] for name in asked.devices]
    assert found == ["more memory", "card", "integrated", "Device", "Device", "simulated"]
    assert asked.devices[3:5] == ("CPU", "CPU.1")


@pytest.mark.parametrize(
    ("name", "mode", "devices", "counts"),
    [
        ("CPU", "", ("CPU",), (0,)),
        ("gpu.0", "", ("GPU.0",), (0,)),
        ("AUTO:NPU, gpu.1 ,CPU", "AUTO", ("GPU.1", "CPU"), (0, 0)),
        ("AUTO:-GPU.1,-GPU.2", "AUTO", ("GPU.0", "CPU"), (0, 0)),
        ("AUTO:-GPU,-GPU.1,-GPU.2", "", ("CPU",), (0,)),
        ("AUTO:GPU,GPU.0", "", ("GPU.0",), (0,)),
        ("multi:GPU(4),CPU", "MULTI", ("GPU.0", "CPU"), (4, 0)),
        ("HETERO:CPU", "", ("CPU",), (0,)),
        ("BATCH:CPU(8)", "BATCH", ("CPU",), (8,)),
    ],
)
def test_names_of_several_devices(machine, name, mode, devices, counts):
    machine(POCL, NVIDIA, TWO)
    assert discover.asked_for(name) == (mode, devices, counts)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AUTO:NPU", "devices here: CPU, GPU"),
        ("AUTO:-CPU,-GPU", "devices here"),
        ("MULTI:NPU,CPU", "devices here"),
        ("BATCH:GPU,CPU", "one device"),
        ("BATCH:GPU(many)", "a number from 1"),
        ("MULTI:GPU(0),CPU", "a number from 1"),
    ],
)
def test_names_that_mean_nothing_here(machine, name, said):
    machine(POCL, NVIDIA)
    with pytest.raises(DeviceError, match=said):
        discover.asked_for(name)


def test_pocl_as_a_gpu(monkeypatch):
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", "Portable")
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "Portable")
    gpu, cpu = discover.open_device("GPU"), discover.open_device("CPU")
    assert (gpu.target.cls, cpu.target.cls) == ("gpu", "cpu")
    assert gpu.info.full_name == cpu.info.full_name
    assert cpu.info.processor
    assert cpu.target.vector_width in (4, 8, 16)
    assert gpu.target.max_work_group >= 256
    assert not gpu.info.is_simulated


@pytest.mark.parametrize(
    ("platform", "version", "dialect", "builds"),
    [
        ("Portable Computing Language", "OpenCL 3.0 PoCL 3.0-rc2", "pocl", "processes"),
        ("Portable Computing Language", "OpenCL 3.0 PoCL 6.0", "pocl", "processes"),
        ("Intel(R) OpenCL", "OpenCL 3.1 LINUX", "intel_cpu", "processes"),
        ("Intel(R) OpenCL HD Graphics", "OpenCL 3.0", "intel", "processes"),
        ("Intel(R) OpenCL Graphics", "OpenCL 3.0", "intel", "processes"),
        ("NVIDIA CUDA", "OpenCL 3.0 CUDA 12", "nvidia", "processes"),
        ("AMD Accelerated Parallel Processing", "OpenCL 2.1", "amd", "processes"),
        ("rusticl", "OpenCL 3.0", "mesa", "threads"),
        ("Brand new", "OpenCL 3.0", "generic", "serial"),
    ],
)
def test_quirks_by_platform(platform, version, dialect, builds):
    quirks = quirks_of(platform, version)
    assert (quirks.dialect, quirks.builds) == (dialect, builds)
    assert reason_of(platform, version)


@pytest.mark.parametrize(
    ("version", "layout"),
    [
        ("OpenCL 2.0 PoCL 1.8  Linux, None+Asserts, LLVM 9.0.1", 8),
        ("OpenCL 3.0 PoCL 3.0-rc2  Linux, Release, LLVM 14.0.6", 8),
        ("OpenCL 3.0 PoCL 3.1+debian  Linux, None+Asserts, LLVM 15.0.6", 9),
        ("OpenCL 2.0 PoCL 1.7  Linux, LLVM 11", 0),
        ("OpenCL 3.0 PoCL 3.10  Linux, LLVM 15", 0),
        ("OpenCL 3.0 PoCL 4.0  Linux, LLVM 16", 0),
        ("OpenCL 3.0 PoCL 13.1  Linux, LLVM 16", 0),
        ("", 0),
    ],
)
def test_only_binaries_of_known_versions_are_taken_apart_and_called(version, layout):
    quirks = quirks_of("Portable Computing Language", version)
    assert quirks.binary_layout == layout
    assert quirks.plays == (layout > 0)


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
