"""`clinfer report`: what a bug report needs to say of this machine; compiles and runs nothing."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable
from typing import Any

import clinfer
from clinfer import config
from clinfer.cli.output import emit_json, size_text
from clinfer.errors import ClinferError

# What clinfer uses, and what it is compared with.
_PACKAGES = (
    "numpy", "onnx", "pyopencl", "platformdirs", "filelock", "xxhash", "pocl-binary-distribution",
    "intel-opencl-rt", "rich", "shtab", "cryptography", "fsspec", "onnxruntime", "openvino",
)  # fmt: skip
# Variables of others that change which drivers there are and how they build.
_FOREIGN = (
    "OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH", "POCL_DEVICES", "POCL_CACHE_DIR",
    "POCL_MAX_PTHREAD_COUNT", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "OMP_NUM_THREADS",
)  # fmt: skip

_SECRET = re.compile(r"(?<=//)[^/@\s]*(?=@)|(?<=\?)\S+")


def arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(options: argparse.Namespace) -> int:
    """Prints versions, devices, drivers, the user's cache and the variables that are set."""
    from clinfer.threads import usable_cores

    document = {
        "clinfer": clinfer.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": usable_cores(),
        "packages": _packages(),
        "devices": _or_error(_devices),
        "cache": _or_error(_cache),
        "environment": _environment(),
    }
    if options.json:
        emit_json(document)
    else:
        _print(document)
    return 0


def _packages() -> dict[str, str]:
    """The versions of those that are installed."""
    found = ((name, _version(name)) for name in _PACKAGES)
    return {name: version for name, version in found if version is not None}


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _or_error(ask: Callable[[], Any]) -> Any:
    """What `ask` gives; what is wrong is a part of the report."""
    try:
        return ask()
    except ClinferError as error:
        return {"error": str(error)}


def _devices() -> list[dict[str, Any]]:
    from clinfer.device.discover import list_devices

    return [
        {
            "device": info.name,
            "name": info.full_name,
            "driver": info.driver_version,
            "version": info.device_version,
            "platform": info.platform,
            "platform_version": info.platform_version,
            "processor": info.processor,
            "units": info.compute_units,
            "memory": info.global_mem,
        }
        for info in list_devices()
    ]


def _cache() -> dict[str, Any]:
    from clinfer.cache.store import Store
    from clinfer.cli.caches import chosen_cache

    path, limit = chosen_cache(None)
    info = Store(path, readonly=True, size_limit=limit or None).info()
    return {
        "directory": str(path),
        "exists": path.is_dir(),
        "entries": info.entries,
        "bytes": info.bytes,
        "limit": info.limit,
        "problem": info.problem,
    }


def _environment() -> dict[str, str]:
    """The variables that are set, clinfer's and others that matter to it; of URLs no passwords."""
    known = (*(variable.name for variable in config.VARIABLES), *_FOREIGN)
    found = {name: _SECRET.sub("...", os.environ[name]) for name in known if name in os.environ}
    if config.SERVE_API_KEY.name in found:
        found[config.SERVE_API_KEY.name] = "..."
    return found


def _print(document: dict[str, Any]) -> None:
    print(f"clinfer {document['clinfer']}, Python {document['python']}, {document['system']}")
    print(f"{document['cores']} cores, {sys.executable}")
    print("packages: " + ", ".join(f"{n} {v}" for n, v in document["packages"].items()))
    devices = document["devices"]
    if isinstance(devices, dict):
        print(f"devices: {devices['error']}")
        devices = []
    for row in devices:
        print(f"{row['device']}: {row['name']}, {row['units']} units, {size_text(row['memory'])}")
        print(f"  driver {row['driver']}, {row['version']}")
        print(f"  {row['platform']}, {row['platform_version']}")
        if row["processor"]:
            print(f"  compiled for {row['processor']}")
    cache = document["cache"]
    if "error" in cache:
        print(f"cache: {cache['error']}")
    else:
        limit = "no limit" if cache["limit"] is None else f"at most {size_text(cache['limit'])}"
        print(
            f"cache: {cache['directory']}, {cache['entries']} entries, "
            f"{size_text(cache['bytes'])}, {limit}"
        )
        if cache["problem"]:
            print(f"  not used: {cache['problem']}")
    for name, value in document["environment"].items():
        print(f"{name}={value}")
