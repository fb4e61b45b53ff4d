"""The door to pyopencl: imported when a device is first needed, its own disk cache off."""

from __future__ import annotations

import os
from typing import Any

from clinfer.errors import DeviceError

INSTALL = (
    "install an OpenCL runtime: `pip install clinfer[pocl]` brings a CPU device along; a GPU's driver "
    "brings its own (the packages nvidia-opencl-icd, intel-opencl-icd or rocm-opencl-icd)"
)


def cl() -> Any:
    """The module pyopencl. Raises `DeviceError` where it cannot be loaded."""
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
    try:
        import pyopencl
    except ImportError as error:
        raise DeviceError(f"pyopencl cannot be loaded ({error}); {INSTALL}") from error
    return pyopencl
