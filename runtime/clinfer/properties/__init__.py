"""Properties of devices, compiled models and the cache, by OpenVINO's names.

Each constant is the property's name: `core.set_property({properties.CACHE_DIR: "cache"})` and
`core.set_property({"CACHE_DIR": "cache"})` are the same. So are OpenVINO's functions: `cache_dir`
and `hint.performance_mode` are names, and `cache_dir("cache")` makes the pair of name and value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from clinfer import config
from clinfer.errors import PropertyError

AUTO_BATCH_TIMEOUT = "AUTO_BATCH_TIMEOUT"
AVAILABLE_DEVICES = "AVAILABLE_DEVICES"
CACHE_DIR = "CACHE_DIR"
CACHE_MODE = "CACHE_MODE"
CACHE_SIZE = "CACHE_SIZE"
CACHE_STORE = "CACHE_STORE"
CPU_TARGET = "CPU_TARGET"
COMPILATION_NUM_THREADS = "COMPILATION_NUM_THREADS"
DEVICE_ARCHITECTURE = "DEVICE_ARCHITECTURE"
DEVICE_TYPE = "DEVICE_TYPE"
ENABLE_STARTUP_FALLBACK = "ENABLE_STARTUP_FALLBACK"
EXECUTION_DEVICES = "EXECUTION_DEVICES"
FULL_DEVICE_NAME = "FULL_DEVICE_NAME"
INFERENCE_PRECISION_HINT = "INFERENCE_PRECISION_HINT"
LOADED_FROM_CACHE = "LOADED_FROM_CACHE"
INFERENCE_NUM_THREADS = "INFERENCE_NUM_THREADS"
MULTI_DEVICE_PRIORITIES = "MULTI_DEVICE_PRIORITIES"
NETWORK_NAME = "NETWORK_NAME"
NUM_STREAMS = "NUM_STREAMS"
OPTIMAL_BATCH_SIZE = "OPTIMAL_BATCH_SIZE"
OPTIMAL_NUMBER_OF_INFER_REQUESTS = "OPTIMAL_NUMBER_OF_INFER_REQUESTS"
OPTIMIZATION_CAPABILITIES = "OPTIMIZATION_CAPABILITIES"
PERFORMANCE_HINT = "PERFORMANCE_HINT"
PERF_COUNT = "PERF_COUNT"
RANGE_FOR_ASYNC_INFER_REQUESTS = "RANGE_FOR_ASYNC_INFER_REQUESTS"
RANGE_FOR_STREAMS = "RANGE_FOR_STREAMS"
SUPPORTED_PROPERTIES = "SUPPORTED_PROPERTIES"

THROUGHPUTS = ("THROUGHPUT", "CUMULATIVE_THROUGHPUT")
"""Hints for most inferences per second: of one device, and of all that AUTO has."""

PRECISIONS = (config.DYNAMIC, "f32", "3xtf32", "bf16x3", "tf32", "f16", "bf16")
"""Values of INFERENCE_PRECISION_HINT: what float32 operands of products may be rounded to."""

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
    names = {"float32": "f32", "fp32": "f32", "float16": "f16", "fp16": "f16", "bfloat16": "bf16"}
    names["undefined"] = config.DYNAMIC
    text = value.to_string() if hasattr(value, "to_string") else value  # a Type
    name = names.get(str(text).lower(), str(text).lower())
    return _one_of(*(p.upper() for p in PRECISIONS))(name).lower()


def _mode(value: Any) -> str:
    if str(value).lower() not in config.CACHE_MODES:
        raise ValueError(value)
    return str(value).lower()


def _cpu_target(value: Any) -> str:
    text = _text(value).lower()
    if text and text not in config.CPU_TARGETS:
        raise ValueError(value)
    return text


def _streams(value: Any) -> int | str:
    if str(value).upper() == "AUTO":
        return "AUTO"
    return _count(value)


def _size(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    return config.parse_size(str(value))


def _count_or_0(value: Any) -> int:
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
            CACHE_SIZE,
            "bytes, say 2147483648 or '2G'; 0 for no limit",
            _size,
            lambda: config.CACHE_SIZE.get(),
            "How much CACHE_DIR may hold; the least recently used entries go first.",
        ),
        Property(
            CACHE_STORE,
            "a URL that fsspec knows, or '' for none",
            _text,
            lambda: config.CACHE_STORE.get() or "",
            "A remote store: what it has is copied into CACHE_DIR, what is built is pushed to it.",
        ),
        Property(
            CPU_TARGET,
            f"'' for this machine's processor, or one of {', '.join(config.CPU_TARGETS)}",
            _cpu_target,
            lambda: config.CPU_TARGET.get(),
            "The processor that code for CPUs is made for, and that a cache then serves.",
        ),
        Property(
            INFERENCE_PRECISION_HINT,
            f"one of {', '.join(PRECISIONS)}",
            _precision,
            lambda: config.DYNAMIC,
            "The precision that products may have where the device has matrix units.",
            compiles=True,
        ),
        Property(
            PERFORMANCE_HINT,
            "'LATENCY', 'THROUGHPUT', 'CUMULATIVE_THROUGHPUT' or 'UNDEFINED'",
            _one_of("LATENCY", *THROUGHPUTS, "UNDEFINED"),
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
            _count_or_0,
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
        Property(
            ENABLE_STARTUP_FALLBACK,
            "True or False",
            _flag,
            lambda: True,
            "Whether AUTO runs on the CPU while the better device compiles.",
        ),
        Property(
            AUTO_BATCH_TIMEOUT,
            "milliseconds, a number of 0 or more",
            _count_or_0,
            lambda: 1000,
            "How long BATCH waits for requests to run together.",
        ),
    )
}

READABLE = {
    AVAILABLE_DEVICES: "the devices' names",
    DEVICE_ARCHITECTURE: "the processor's instruction set, or what the driver says",
    DEVICE_TYPE: "'cpu' or 'gpu': which schedules are used",
    EXECUTION_DEVICES: "the devices a compiled model runs on",
    FULL_DEVICE_NAME: "the device's name as its driver gives it",
    MULTI_DEVICE_PRIORITIES: "the devices that a compiled model was asked for, the first first",
    LOADED_FROM_CACHE: "whether a compiled model was imported from the cache",
    NETWORK_NAME: "the name of the file that a model was compiled from",
    OPTIMAL_BATCH_SIZE: "how many requests run as one, of a compiled model with BATCH",
    OPTIMAL_NUMBER_OF_INFER_REQUESTS: "how many requests keep the device busy",
    OPTIMIZATION_CAPABILITIES: "what the device can do: FP32, FP16, INT8, EXPORT_IMPORT ...",
    RANGE_FOR_ASYNC_INFER_REQUESTS: "the least and the greatest sensible number, and the step",
    RANGE_FOR_STREAMS: "the least and the greatest sensible number",
    SUPPORTED_PROPERTIES: "the names of all properties that can be read here",
}


def mapping(values: Any) -> Mapping[str, Any]:
    """Properties as users give them: a dict, a pair of name and value, or several pairs.

    Raises `PropertyError` for anything else.
    """
    if isinstance(values, Mapping):
        return values
    if isinstance(values, tuple) and len(values) == 2 and isinstance(values[0], str):
        return {values[0]: values[1]}
    if isinstance(values, (list, tuple)) and all(
        isinstance(item, tuple) and len(item) == 2 for item in values
    ):
        return dict(values)
    raise PropertyError(f"properties are a dict of names and values; found {type(values).__name__}")


def parse(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked values of properties. Raises `PropertyError` for an unknown name or a bad value.

    OpenVINO's that have no effect here are left out, with a warning.
    """
    result: dict[str, Any] = {}
    without: list[str] = []
    for name, value in values.items():
        known = SETTABLE.get(name)
        if known is None:
            without.append(_without_effect(name))
            continue
        try:
            result[name] = known.parse(value)
        except (ValueError, KeyError, TypeError):
            if name == CACHE_MODE and str(value).upper() in ("OPTIMIZE_SIZE", "OPTIMIZE_SPEED"):
                without.append(f"{name}={value}")
                continue
            raise PropertyError(f"{name} takes {known.expects}, found {value!r}") from None
    if without:
        import warnings

        said = "no effect in clinfer, which takes it as OpenVINO does and goes on"
        warnings.warn(f"{', '.join(without)}: {said}", UserWarning, stacklevel=2)
    return result


def with_priorities(device: Any, values: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The device's name with MULTI_DEVICE_PRIORITIES, where that is given: 'AUTO:GPU,CPU'."""
    if MULTI_DEVICE_PRIORITIES not in values:
        return device, values
    rest = {name: value for name, value in values.items() if name != MULTI_DEVICE_PRIORITIES}
    listed = values[MULTI_DEVICE_PRIORITIES]
    return f"{device}:{listed}" if ":" not in str(device) else device, rest


def _without_effect(name: Any) -> str:
    """The name, if it is one of OpenVINO's without effect. Raises `PropertyError` for others."""
    from clinfer.properties.names import MISSING, WITHOUT_EFFECT

    if name in READABLE:
        raise PropertyError(f"{name} can be read, not set")
    if name in MISSING:
        raise PropertyError(f"clinfer does not have {name}: {MISSING[name]}")
    if name not in WITHOUT_EFFECT:
        raise PropertyError(
            f"there is no property {name!r}{_close(name, [*SETTABLE, *WITHOUT_EFFECT])}; "
            f"properties that can be set: {', '.join(SETTABLE)}"
        )
    return str(name)


def _close(name: Any, known: list[str]) -> str:
    """A suggestion, for a name that is nearly right."""
    from difflib import get_close_matches

    found = get_close_matches(str(name).upper(), known, 1)
    return f" (did you mean {found[0]}?)" if found else ""


def unknown_to_read(name: str) -> PropertyError:
    """The error for reading a property that does not exist."""
    known = sorted({*SETTABLE, *READABLE})
    return PropertyError(
        f"there is no property {name!r} here{_close(name, known)}; known ones: {', '.join(known)}"
    )


_ROOMS = ("device", "hint", "intel_auto", "intel_cpu", "intel_gpu", "log", "names", "streams")


def __getattr__(name: str) -> Any:
    """OpenVINO's names and submodules, loaded when they are first used."""
    if name in _ROOMS:
        return import_module(f"clinfer.properties.{name}")
    from clinfer.properties.names import member

    return member("", name)


def __dir__() -> list[str]:
    from clinfer.properties.names import members

    return sorted({*globals(), *_ROOMS, *members("")})
