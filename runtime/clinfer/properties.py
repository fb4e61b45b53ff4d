"""Properties of devices, compiled models and the cache, by OpenVINO's names.

Each constant is the property's name: `core.set_property({properties.CACHE_DIR: "cache"})` and
`core.set_property({"CACHE_DIR": "cache"})` are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clinfer import config
from clinfer.errors import PropertyError

AVAILABLE_DEVICES = "AVAILABLE_DEVICES"
CACHE_DIR = "CACHE_DIR"
CACHE_MODE = "CACHE_MODE"
CACHE_STORE = "CACHE_STORE"
COMPILATION_NUM_THREADS = "COMPILATION_NUM_THREADS"
DEVICE_TYPE = "DEVICE_TYPE"
EXECUTION_DEVICES = "EXECUTION_DEVICES"
FULL_DEVICE_NAME = "FULL_DEVICE_NAME"
INFERENCE_PRECISION_HINT = "INFERENCE_PRECISION_HINT"
LOADED_FROM_CACHE = "LOADED_FROM_CACHE"
INFERENCE_NUM_THREADS = "INFERENCE_NUM_THREADS"
NUM_STREAMS = "NUM_STREAMS"
OPTIMAL_NUMBER_OF_INFER_REQUESTS = "OPTIMAL_NUMBER_OF_INFER_REQUESTS"
OPTIMIZATION_CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
PERFORMANCE_HINT = "PERFORMANCE_HINT"
PERF_COUNT = "PERF_COUNT"
SUPPORTED_PROPERTIES = "SUPPORTED_PROPERTIES"

EXPORT_IMPORT = "EXPORT_IMPORT"
"""A capability, not a property: whole compiled models can be exported and imported."""


class Property(NamedTuple):
    """A property an application can set: what it takes, and its value when nobody sets it.

    `compiles` states that it changes what is compiled, so that it belongs to a cache key.
    """

    name: str
    expects: str
    parse: Callable[[Any], Any]
    default: Callable[[], Any]
    doc: str
    compiles: bool = False


def _path(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(value)
    return os.fspath(value) if not isinstance(value, str) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if str(value).upper() not in choices:
            raise ValueError(value)
        return str(value).upper()

    return parse


def _precision(value: Any) -> str:
    names = {"f32": "f32", "float32": "f32", "fp32": "f32"}
    return names[str(value).lower()]


def _mode(value: Any) -> str:
    if str(value).lower() not in config.CACHE_MODES:
        raise ValueError(value)
    return str(value).lower()


def _streams(value: Any) -> int | str:
    if str(value).upper() == "AUTO":
        return "AUTO"
    return _count(value)


def _threads(value: Any) -> int:
    return 0 if value in (0, "0") and not isinstance(value, bool) else _count(value)


def _flag(value: Any) -> bool:
    return value if isinstance(value, bool) else config.parse_flag(str(value))


def _count(value: Any) -> int:
    count = int(value)
    if count < 1 or isinstance(value, bool):
        raise ValueError(value)
    return count


SETTABLE = {
    entry.name: entry
    for entry in (
        Property(
            CACHE_DIR,
            "a directory, or '' for no cache",
            _path,
            lambda: config.CACHE_DIR.get() or "",
            "Where compiled models (CPU) and program binaries (GPU) are kept.",
        ),
        Property(
            CACHE_MODE,
            f"one of {', '.join(config.CACHE_MODES)}",
            _mode,
            lambda: config.CACHE_MODE.get(),
            "How the cache is used: 'cache-only' raises instead of compiling anything.",
        ),
        Property(
            CACHE_STORE,
            "a URL that fsspec knows, or '' for none",
            _text,
            lambda: config.CACHE_STORE.get() or "",
            "A remote store: what it has is copied into CACHE_DIR, what is built is pushed to it.",
        ),
        Property(
            INFERENCE_PRECISION_HINT,
            "'f32'",
            _precision,
            lambda: "f32",
            "The precision kernels compute with; float32 is what there is.",
            compiles=True,
        ),
        Property(
            PERFORMANCE_HINT,
            "'LATENCY', 'THROUGHPUT' or 'UNDEFINED'",
            _one_of("LATENCY", "THROUGHPUT", "UNDEFINED"),
            lambda: "LATENCY",
            "What OPTIMAL_NUMBER_OF_INFER_REQUESTS is chosen for.",
        ),
        Property(
            NUM_STREAMS,
            "a number from 1, or 'AUTO'",
            _streams,
            lambda: "AUTO",
            "How many requests an AsyncInferQueue runs side by side.",
        ),
        Property(
            INFERENCE_NUM_THREADS,
            "a number from 1, or 0 for all cores",
            _threads,
            lambda: 0,
            "How many cores of a CPU all requests together use at most.",
        ),
        Property(
            PERF_COUNT,
            "True or False",
            _flag,
            lambda: False,
            "Keeps the time of every step, for `CompiledModel.profiling_info`.",
        ),
        Property(
            COMPILATION_NUM_THREADS,
            "a number from 1",
            _count,
            lambda: config.COMPILE_JOBS.get() or os.cpu_count() or 1,
            "How many programs are built at a time.",
        ),
    )
}

READABLE = {
    AVAILABLE_DEVICES: "the devices' names",
    DEVICE_TYPE: "'cpu' or 'gpu': which schedules are used",
    EXECUTION_DEVICES: "the devices a compiled model runs on",
    FULL_DEVICE_NAME: "the device's name as its driver gives it",
    LOADED_FROM_CACHE: "whether a compiled model was imported from the cache",
    OPTIMAL_NUMBER_OF_INFER_REQUESTS: "how many requests keep the device busy",
    OPTIMIZATION_CAPABILITIES: "what the device can do: FP32, FP16, INT8, EXPORT_IMPORT ...",
    SUPPORTED_PROPERTIES: "the names of all properties",
}


def parse(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked values of properties. Raises `PropertyError` for an unknown name or a bad value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        known = SETTABLE.get(name)
        if known is None:
            raise PropertyError(_unknown(name))
        try:
            result[name] = known.parse(value)
        except (ValueError, KeyError, TypeError):
            raise PropertyError(f"{name} takes {known.expects}, found {value!r}") from None
    return result


def _unknown(name: str) -> str:
    if name in READABLE:
        return f"{name} can be read, not set"
    return f"there is no property {name!r}; properties that can be set: {', '.join(SETTABLE)}"


def unknown_to_read(name: str) -> PropertyError:
    """The error for reading a property that does not exist."""
    known = ", ".join(sorted({*SETTABLE, *READABLE}))
    return PropertyError(f"there is no property {name!r} here; known ones: {known}")
