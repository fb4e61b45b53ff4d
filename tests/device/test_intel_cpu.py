"""Finding Intel's CPU runtime where its wheel is installed, with and without it."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest

from clinfer.device import intel_cpu


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
    for name in intel_cpu._CHOSEN_BY_USER:
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
    return intel_cpu.library_to_add(wheel / "pyopencl", wheel / "vendors")


def test_the_wheel_is_shown_beside_what_the_system_has(wheel):
    library = found(wheel)
    assert library == wheel / "lib" / intel_cpu.LIBRARY
    with intel_cpu.vendors(library, wheel / "vendors") as folder:
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
    with intel_cpu.vendors(library, wheel / "vendors") as folder:
        assert sorted(f.name for f in folder.iterdir()) == ["clinfer-intel-cpu.icd", "nvidia.icd"]


def test_a_library_that_does_not_load_is_said(wheel, caplog):
    intel_cpu.warn_if_missing(wheel / "lib" / intel_cpu.LIBRARY)
    assert "does not load" in caplog.text
    assert "OCL_ICD_VENDORS" not in os.environ
