"""Intel's OpenCL CPU runtime from its wheel (`intel-opencl-rt`), which no loader finds by itself.

The wheel puts its library into the environment's lib folder and an .icd file with a wrong path
beside; `clinfer.device.vendors` shows it to the loader.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DISTRIBUTION = "intel-opencl-rt"
LIBRARY = "libintelocl.so"
HINT = (
    "; where another package of this process brings a libtbb of its own (OpenVINO), use clinfer "
    "before it"
)


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
