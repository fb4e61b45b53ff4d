"""Drivers that no .icd file names, shown to the loader of OpenCL drivers.

A loader reads the .icd files of one folder; each names a driver's library. Two kinds of drivers lie
where no such file leads to:

- Intel's CPU runtime from its wheel (`clinfer.device.intel_cpu`);
- a GPU's, in a container: NVIDIA's container toolkit mounted `libnvidia-opencl.so.1` from the host
  without an .icd file until the middle of 2026, and images built by hand forget it as well.

So the loader is shown a folder with the system's .icd files and one for each of these, for the time
in which it reads them: drivers are found once in a process.

Nothing is done where the user has told the loader what to load, where the system's files name such
a library, and where pyopencl does not bring its own loader along: where another one looks is not
known.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clinfer.device import intel_cpu
from clinfer.device.driver import loaded_libraries
from clinfer.log import Log

_LOG = Log("clinfer.device")
VARIABLE = "OCL_ICD_VENDORS"
# Whoever sets one of these says which drivers are loaded.
_CHOSEN_BY_USER = (VARIABLE, "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")
_SYSTEM = Path("/etc/OpenCL/vendors")
# A driver's library, as its vendor's .icd file names it, and folders of its own below a lib folder.
DRIVERS = {
    "libnvidia-opencl.so.1": ("",),
    "libamdocl64.so": ("", "opencl/lib"),
    "libigdrcl.so": ("", "intel-opencl"),
}
# Where the dynamic linker looks, and where containers mount drivers.
_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/nvidia/lib64",
    "/opt/rocm/lib",
    "/opt/rocm",
)


def unlisted(pyopencl: Path, system: Path = _SYSTEM) -> list[Path]:
    """The libraries that the loader of the package in that folder has to be shown."""
    if not sys.platform.startswith("linux"):
        return []
    if any(os.environ.get(name) for name in _CHOSEN_BY_USER):
        return []
    if not any(pyopencl.glob(".libs/libOpenCL*")):
        return []
    named = "\n".join(_texts(system).values())
    found = [] if intel_cpu.LIBRARY in named else [intel_cpu.library()]
    found += [_library(name, places) for name, places in DRIVERS.items() if name not in named]
    return [path for path in found if path is not None]


def may_have_others(system: Path = _SYSTEM) -> bool:
    """Whether drivers besides those in Python's packages may be found."""
    if any(os.environ.get(name) for name in _CHOSEN_BY_USER):
        return True
    if any(system.glob("*.icd")) or not sys.platform.startswith("linux"):
        return True
    return any(_library(name, places) is not None for name, places in DRIVERS.items())


def _library(name: str, places: Sequence[str]) -> Path | None:
    """Where a driver's library lies; None where it is not in this system."""
    told = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    for folder in (*told, *_FOLDERS):
        for place in places:
            path = os.path.join(folder, place, name)  # noqa: PTH118  (forty paths at each start)
            if os.path.isfile(path):  # noqa: PTH113
                return Path(path)
    return None


@contextmanager
def shown(added: Sequence[Path], system: Path = _SYSTEM) -> Iterator[Path]:
    """A folder with the system's .icd files and one for each of `added`, for a block's time."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="clinfer-icd-"))
    try:
        for name, text in _texts(system).items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in added:
            stem = path.name.partition(".")[0]
            (folder / f"clinfer-{stem}.icd").write_text(f"{path}\n", encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warn_if_missing(added: Path) -> None:
    """Says why a library that the loader was shown is not in this process."""
    if loaded_libraries(str(added)) or loaded_libraries(str(added.resolve())):
        return
    try:
        ctypes.CDLL(str(added))
    except OSError as error:
        hint = intel_cpu.HINT if added.name == intel_cpu.LIBRARY else ""
        _LOG.warning("the OpenCL driver '%s' is here but does not load: %s%s", added, error, hint)


def _texts(folder: Path) -> dict[str, str]:
    """The .icd files of a folder that can be read: name -> content."""
    read = {file.name: _text(file) for file in sorted(folder.glob("*.icd"))}
    return {name: text for name, text in read.items() if text is not None}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _LOG.debug("%s is left out: %s", file, error)
    return None
