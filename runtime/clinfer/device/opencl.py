"""The door to pyopencl: imported when a device is first needed, its own disk cache off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

from clinfer.device import intel_cpu, scratch
from clinfer.errors import DeviceError

INSTALL = (
    "install an OpenCL runtime: `pip install clinfer[pocl]` brings a CPU device along, "
    "`pip install clinfer[intel-cpu]` a faster one for x86-64; a GPU's driver brings its own "
    "(the packages nvidia-opencl-icd, intel-opencl-icd or rocm-opencl-icd)"
)
_POCL_FOLDER = "POCL_CACHE_DIR"
_ENVIRONMENT = RLock()


def cl() -> Any:
    """The module pyopencl. Raises `DeviceError` where it cannot be loaded."""
    return _loaded()[0]


def pocl_folder() -> Path | None:
    """Where PoCL keeps its files in this process; None where the user has chosen the place."""
    return _loaded()[1]


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Sets a variable that drivers read, for the time of a block; one thread at a time."""
    with _ENVIRONMENT:
        before = os.environ.get(name)
        os.environ[name] = value
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


@lru_cache(maxsize=1)
def _loaded() -> tuple[Any, Path | None]:
    os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
    try:
        import pyopencl
    except ImportError as error:
        raise DeviceError(f"pyopencl cannot be loaded ({error}); {INSTALL}") from error
    _share_generated_invokers()
    return pyopencl, _load_drivers(pyopencl)


def _load_drivers(pyopencl: Any) -> Path | None:
    """Lets the drivers load with the settings they need; returns PoCL's folder, see `pocl_folder`.

    Drivers read these variables once. Processes that the application starts must not see them:
    the folders are of this process.
    """
    added = intel_cpu.library_to_add(Path(pyopencl.__file__).parent)
    folder = None if os.environ.get(_POCL_FOLDER) else scratch.new_folder()
    if added is None and folder is None:
        return None
    with ExitStack() as variables:
        if added is not None:
            shown = variables.enter_context(intel_cpu.vendors(added))
            variables.enter_context(environment(intel_cpu.VENDORS, str(shown)))
        if folder is not None:
            variables.enter_context(environment(_POCL_FOLDER, str(folder)))
        _ask_for_devices(pyopencl)
    if added is not None:
        intel_cpu.warn_if_missing(added)
    return folder


def _ask_for_devices(pyopencl: Any) -> None:
    """Whoever lists the devices meets the errors again, and says which platform they come from."""
    with suppress(pyopencl.Error):
        for platform in pyopencl.get_platforms():
            with suppress(pyopencl.Error):
                platform.get_devices()


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
