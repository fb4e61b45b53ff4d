"""The door to OpenCL, opened when a device is first needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from clinfer import forks
from clinfer.device import pocl_view, scratch, vendors
from clinfer.errors import DeviceError

INSTALL = (
    "install an OpenCL runtime: `pip install clinfer[pocl]` brings a CPU device along, "
    "`pip install clinfer[intel-cpu]` another one for x86-64; a GPU's driver brings its own "
    "(the packages nvidia-opencl-icd, intel-opencl-icd or rocm-opencl-icd)"
)
_POCL_FOLDER = "POCL_CACHE_DIR"
# PoCL has hwloc look at the processor. Where Linux describes the caches, hwloc need not move this
# thread to each core in turn to ask the core: "-x86" leaves out the component that does.
_HWLOC = ("HWLOC_COMPONENTS", "-x86")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache/index0")
_ENVIRONMENT = forks.new_rlock()
_OPENING = forks.new_rlock()


def cl() -> Any:
    """The module `clinfer.device.binding`. Raises `DeviceError` where OpenCL cannot be loaded."""
    return _opened().binding


def is_lost() -> bool:
    """Whether this process was forked from one that had opened drivers: none works here."""
    from clinfer.device import loader

    cl()
    return loader.functions().is_lost


def loaders_package() -> Path | None:
    """The folder of pyopencl; None where another loader of drivers is in use."""
    return _opened().package


def pocl_folder() -> Path | None:
    """Where PoCL keeps its files in this process; None where the user has chosen the place."""
    return _opened().folder


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


_built_ins: list[str] = []  # of PoCL, where they are not to be the machine's


def choose_built_ins(library: str) -> None:
    """Which of PoCL's libraries of functions this process uses; before drivers are loaded."""
    _built_ins[:] = [library]


class _OpenCL:
    """The binding, and what the drivers need to be loaded with the settings they need.

    `folder` is PoCL's, `package` that of pyopencl, where its loader is in use. Drivers read these
    variables once. Processes that the application starts must not see them: the folders are of this
    process.
    """

    def __init__(self, binding: Any, package: Path | None) -> None:
        self.binding = binding
        self.folder = None if os.environ.get(_POCL_FOLDER) else scratch.new_folder()
        self.package = package
        self._added = [] if package is None else vendors.unlisted(package)

    def load_drivers(self) -> None:
        """Once: they read their variables then."""
        added = self._added
        with ExitStack() as variables:
            if _HWLOC[0] not in os.environ and _CACHES.exists():
                variables.enter_context(environment(*_HWLOC))
            if added:
                shown = variables.enter_context(vendors.shown(added))
                variables.enter_context(environment(vendors.VARIABLE, str(shown)))
            for library in _built_ins:
                pocl_view.require(self.package)
                assert self.package is not None
                home = pocl_view.view(self.package, library, scratch.new_folder())
                variables.enter_context(environment(pocl_view.HOME, str(home)))
            if self.folder is not None:
                variables.enter_context(environment(_POCL_FOLDER, str(self.folder)))
            _ask_for_devices(self.binding)
        for path in added:
            vendors.warn_if_missing(path)


def _opened() -> _OpenCL:
    with _OPENING:
        return _open()


@lru_cache(maxsize=1)
def _open() -> _OpenCL:
    from clinfer.device import binding, loader

    try:
        loader.functions()
    except OSError as error:
        raise DeviceError(f"OpenCL cannot be loaded ({error}); {INSTALL}") from error
    try:
        found = _OpenCL(binding, loader.package())
        found.load_drivers()
    except OSError as error:
        raise DeviceError(
            f"there is no place for the files of OpenCL's drivers ({error}): make room in /dev/shm "
            f"or in TMPDIR's folder, or name a folder for PoCL with {_POCL_FOLDER}"
        ) from error
    return found


def _ask_for_devices(binding: Any) -> None:
    """Whoever lists the devices meets the errors again, and says which platform they come from."""
    with suppress(binding.Error):
        for platform in binding.get_platforms():
            with suppress(binding.Error):
                platform.get_devices()
