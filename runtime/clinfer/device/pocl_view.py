"""PoCL's wheel with another of its libraries of built-in functions in force.

PoCL's wheel brings a library of OpenCL's functions for each generation of processors, as LLVM IR,
and links the one that fits the *machine's* features into every program, whatever processor the
program is compiled for. The functions keep the instruction set they were made for. To compile for
an older or newer processor, a build worker therefore loads PoCL through a folder of links in which
every name of such a library leads to the target's:

    VIEW/pyopencl/.libs/pocl.icd                     names the next
    VIEW/pyopencl/.libs/libpocl-*.so                 -> the wheel's; it looks for the rest from here
    VIEW/pocl_binary_distribution/.libs/*            -> the wheel's
    VIEW/pocl_binary_distribution/.libs/share/pocl/* -> the wheel's, but for kernel-*-FEATURES.bc
"""

from __future__ import annotations

import re
from pathlib import Path

from clinfer.errors import DeviceError

HOME = "PYOPENCL_HOME"
"""Where the loader that pyopencl brings along looks for PoCL; read with the first platform."""
_DISTRIBUTION = "pocl_binary_distribution"
_LIBRARY = re.compile(r"(?P<machine>kernel-x86_64-.*)-(?P<features>sse2|ssse3|sse41|avx\w*)\.bc")


def require(package: Path | None) -> None:
    """Raises `DeviceError` unless PoCL's wheel lies beside that package, pyopencl's folder."""
    found = None if package is None else package.parent / _DISTRIBUTION / ".libs/share/pocl"
    if package is None or found is None or not any(package.glob(".libs/libpocl*")):
        raise DeviceError(
            "CPU_TARGET takes the PoCL of `pip install clinfer[pocl]`, which has a library of "
            "functions for each generation of processors; it is not installed here, or not in use"
        )


def view(package: Path, library: str, folder: Path) -> Path:
    """Makes the folder of links; returns what `HOME` is to name. Raises `DeviceError`, `OSError`.

    `package` is pyopencl's folder, `library` the features in the wanted library's name, 'avx2'.
    """
    require(package)
    home = folder / package.name
    libraries = home / ".libs"
    beside = folder / _DISTRIBUTION / ".libs"
    _link_all(package / ".libs", libraries)
    _link_all(package.parent / _DISTRIBUTION / ".libs", beside)
    shared = beside / "share" / "pocl"
    source = package.parent / _DISTRIBUTION / ".libs" / "share" / "pocl"
    _link_all(source, shared)
    for file in source.iterdir():
        match = _LIBRARY.fullmatch(file.name)
        if match is not None:
            wanted = source / f"{match['machine']}-{library}.bc"
            if not wanted.is_file():
                raise DeviceError(f"this PoCL has no library of functions '{wanted.name}'")
            (shared / file.name).unlink()
            (shared / file.name).symlink_to(wanted)
    (driver,) = libraries.glob("libpocl*.so*")
    for listed in libraries.glob("*.icd"):
        listed.unlink()
    # With a name alone the loader would look beside itself, where the wheel is.
    (libraries / "pocl.icd").write_text(f"{driver}\n", encoding="utf-8")
    return home


def _link_all(source: Path, target: Path) -> None:
    """Links to the files of a folder and to its folders, but for `share`, which is made anew."""
    target.mkdir(parents=True)
    for item in source.iterdir():
        if item.name != "share":
            (target / item.name).symlink_to(item)
