"""Drivers that no .icd file names: Intel's CPU runtime from its wheel, a GPU's in a container."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clinfer.device import intel_cpu, vendors


class File:
    """A file of a distribution."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path

    def locate(self) -> Path:
        return self._path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An environment with the wheel: the library's path and the folders around it."""
    for name in vendors._CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    library = tmp_path / "lib" / intel_cpu.LIBRARY
    library.parent.mkdir()
    library.write_bytes(b"")
    (tmp_path / "pyopencl" / ".libs").mkdir(parents=True)
    (tmp_path / "pyopencl" / ".libs" / "libOpenCL-1.so").write_bytes(b"")
    (tmp_path / "vendors").mkdir()
    (tmp_path / "vendors" / "nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    files = [File(tmp_path / "lib" / "libtbb.so"), File(tmp_path / "x" / ".." / library)]
    distribution = type("Distribution", (), {"files": files})
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    monkeypatch.setattr(intel_cpu, "_holds_the_wheel", lambda folder: True)
    return tmp_path


def found(wheel: Path) -> Path | None:
    added = vendors.unlisted(wheel / "pyopencl", wheel / "vendors")
    return next((path for path in added if path.name == intel_cpu.LIBRARY), None)


def test_the_wheel_is_shown_beside_what_the_system_has(wheel):
    library = found(wheel)
    assert library == wheel / "lib" / intel_cpu.LIBRARY
    with vendors.shown([library], wheel / "vendors") as folder:
        texts = {file.name: file.read_text() for file in folder.iterdir()}
    assert texts.pop("nvidia.icd") == "libnvidia-opencl.so.1\n"
    assert list(texts.values()) == [f"{library}\n"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH"])
def test_who_names_drivers_gets_those_only(wheel, monkeypatch, name):
    monkeypatch.setenv(name, "/somewhere")
    assert found(wheel) is None


def test_a_runtime_of_the_system_comes_first(wheel):
    (wheel / "vendors" / "intel64.icd").write_text("/opt/intel/oneapi/lib/libintelocl.so\n")
    assert found(wheel) is None


def test_a_loader_that_looks_elsewhere_is_left_alone(wheel):
    (wheel / "pyopencl" / ".libs" / "libOpenCL-1.so").unlink()
    assert found(wheel) is None


def test_a_library_that_is_gone_or_no_wheel(wheel, monkeypatch):
    (wheel / "lib" / intel_cpu.LIBRARY).unlink()
    assert found(wheel) is None

    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", none)
    assert found(wheel) is None


def test_unreadable_files_of_the_system_are_left_out(wheel):
    (wheel / "vendors" / "odd.icd").write_bytes(b"\xff\xfe")
    (wheel / "vendors" / "gone.icd").symlink_to(wheel / "nowhere")
    library = found(wheel)
    assert library is not None
    with vendors.shown([library], wheel / "vendors") as folder:
        assert sorted(f.name for f in folder.iterdir()) == ["clinfer-libintelocl.icd", "nvidia.icd"]


def test_a_library_that_does_not_load_is_said(wheel, caplog):
    vendors.warn_if_missing(wheel / "lib" / intel_cpu.LIBRARY)
    assert "does not load" in caplog.text
    assert "OCL_ICD_VENDORS" not in os.environ


@pytest.fixture
def container(wheel, monkeypatch):
    """No wheel of Intel's, no .icd file; a folder for libraries on the linker's path."""
    monkeypatch.setattr(intel_cpu, "_holds_the_wheel", lambda folder: False)
    monkeypatch.setattr(vendors, "_FOLDERS", ())
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{wheel / 'nowhere'}:{wheel / 'mounted'}")
    (wheel / "mounted" / "intel-opencl").mkdir(parents=True)
    shutil.rmtree(wheel / "vendors")
    return wheel


@pytest.mark.parametrize(
    "name", ["libnvidia-opencl.so.1", "libamdocl64.so", "intel-opencl/libigdrcl.so"]
)
def test_a_driver_mounted_without_an_icd_file_is_shown(container, name):
    library = container / "mounted" / name
    library.write_bytes(b"")
    assert vendors.unlisted(container / "pyopencl", container / "vendors") == [library]


def test_a_driver_that_an_icd_file_names_is_not_shown_twice(container):
    (container / "mounted" / "libnvidia-opencl.so.1").write_bytes(b"")
    (container / "vendors").mkdir()
    (container / "vendors" / "nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    assert vendors.unlisted(container / "pyopencl", container / "vendors") == []


def test_a_container_without_drivers(container):
    assert vendors.unlisted(container / "pyopencl", container / "vendors") == []


_DRIVER = """
#include <stdlib.h>
#include <stdio.h>
int clIcdGetPlatformIDsKHR(unsigned n, void **ids, unsigned *found) {
    FILE *told = fopen(getenv("TOLD"), "w");
    fputs("asked", told);
    fclose(told);
    return -1001;
}
void *clGetExtensionFunctionAddress(const char *name) { return clIcdGetPlatformIDsKHR; }
"""


@pytest.mark.skipif(
    shutil.which("cc") is None or any(Path("/etc/OpenCL/vendors").glob("*nvidia*")),
    reason="a compiler makes the driver, and the machine's own is not to be listed",
)
def test_the_loader_asks_a_driver_mounted_without_an_icd_file(tmp_path):
    library = tmp_path / "libnvidia-opencl.so.1"
    (tmp_path / "driver.c").write_text(_DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "driver.c")], check=True
    )
    told = tmp_path / "told"
    subprocess.run(
        [sys.executable, "-c", "import clinfer; clinfer.Core().available_devices"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LD_LIBRARY_PATH": str(tmp_path),
            "TOLD": str(told),
        },
        check=True,
    )
    assert told.read_text() == "asked"
