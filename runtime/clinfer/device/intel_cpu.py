"""Intel's OpenCL CPU runtime from its wheel (`intel-opencl-rt`), which no loader finds by itself.

A loader of OpenCL drivers reads the .icd files of one folder; each names a driver's library. The
wheel puts its library into the environment's lib folder and an .icd file with a wrong path beside.
So the loader is shown a folder with the system's .icd files and one for this library, for the time
in which it reads them: a driver is found once in a process.

Nothing is done where the user has told the loader what to load, where the system's files name such
a library, and where pyopencl does not bring its own loader along: where another one looks is not
known.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinfer.device.driver import loaded_libraries
from clinfer.log import Log

_LOG = Log("clinfer.device")
DISTRIBUTION = "intel-opencl-rt"
LIBRARY = "libintelocl.so"
VENDORS = "OCL_ICD_VENDORS"
# Whoever sets one of these says which drivers are loaded.
_CHOSEN_BY_USER = (VENDORS, "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")
_SYSTEM = Path("/etc/OpenCL/vendors")


def library() -> Path | None:
    """The library of the installed wheel; None where there is no such wheel."""
    # The import takes ten milliseconds, a look at the folders less than one.
    if not any(_holds_the_wheel(Path(folder or ".")) for folder in sys.path):
        return None
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        files = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name == LIBRARY)
    return next((path for path in found if path.is_file()), None)


def _holds_the_wheel(folder: Path) -> bool:
    prefix = f"{DISTRIBUTION.replace('-', '_')}-"
    return any(n.startswith(prefix) and n.endswith(".dist-info") for n in _names(folder))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (a path for each name takes as long again)
    except OSError:
        return []


def library_to_add(pyopencl: Path, system: Path = _SYSTEM) -> Path | None:
    """The wheel's library where the loader of the package in that folder has to be shown it."""
    if not sys.platform.startswith("linux"):
        return None
    if any(os.environ.get(name) for name in _CHOSEN_BY_USER):
        return None
    brings_a_loader = any(n.startswith("libOpenCL") for n in _names(pyopencl / ".libs"))
    if not brings_a_loader or any(LIBRARY in text for text in _texts(system).values()):
        return None
    return library()


@contextmanager
def vendors(added: Path, system: Path = _SYSTEM) -> Iterator[Path]:
    """A folder with the system's .icd files and one that names `added`, for a block's time."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="clinfer-icd-"))
    try:
        for name, text in _texts(system).items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "clinfer-intel-cpu.icd").write_text(f"{added}\n", encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warn_if_missing(added: Path) -> None:
    """Says why a library that the loader was shown is not in this process."""
    if loaded_libraries(str(added)):
        return
    try:
        ctypes.CDLL(str(added))
    except OSError as error:
        _LOG.warning(
            "Intel's OpenCL CPU runtime is installed but does not load: %s; where another package "
            "of this process brings a libtbb of its own (OpenVINO), use clinfer before it",
            error,
        )


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
