"""The door to pyopencl: imported when a device is first needed, its own disk cache off."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
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
    _share_generated_invokers()
    return pyopencl


@lru_cache(maxsize=1)
def _share_generated_invokers() -> None:
    """Lets kernel objects of one function share the Python code pyopencl generates for calling it.

    It generates and compiles that code anew for every kernel object, 0.3 ms each, and a plan has a
    kernel object per launch. The code takes the kernel as an argument, so it can be shared.
    """
    from pyopencl import invoker

    generate: Callable[..., Any] | None = getattr(invoker, "generate_enqueue_and_set_args", None)
    if generate is None:
        return
    known: dict[tuple[Any, ...], Any] = {}

    def shared(*args: Any, **named: Any) -> Any:
        key = tuple(_hashable(value) for value in (*args, *sorted(named.items())))
        if key not in known:
            known[key] = generate(*args, **named)
        return known[key]

    invoker.generate_enqueue_and_set_args = shared


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
