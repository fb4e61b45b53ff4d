"""Execution providers as names of devices: which one a session runs on, with which properties."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clinfer import config, properties
from clinfer.ort.errors import BadValueError

OPENCL = "OpenCLExecutionProvider"
CPU = "CPUExecutionProvider"

_DEVICES = {OPENCL: "AUTO", CPU: "CPU"}


class Placement(NamedTuple):
    """A provider, the device it stands for here, its properties, and the options as given."""

    provider: str
    device: str
    properties: dict[str, Any]
    options: dict[str, str]


def get_available_providers() -> list[str]:
    """The providers there are: OpenCL, and the CPU through it."""
    return [OPENCL, CPU]


def get_all_providers() -> list[str]:
    """As `get_available_providers`."""
    return get_available_providers()


def get_device() -> str:
    """'GPU' where OpenCL offers one, else 'CPU'."""
    from clinfer.ort.loading import core

    return "GPU" if any(name.startswith("GPU") for name in core().available_devices) else "CPU"


def placement(
    providers: Sequence[Any] | None, provider_options: Sequence[Mapping[Any, Any]] | None
) -> Placement:
    """Where a session runs: by the first of the providers that is here, else on the CPU.

    The device is that of the option 'device_name', else of the environment, else the provider's.
    """
    named = _named(providers, provider_options)
    chosen = next((name for name in named if name in _DEVICES), CPU if named else OPENCL)
    options = named.get(chosen, {})
    given = {str(key).lower(): value for key, value in options.items()}
    device = given.pop("device_name", None) or config.ORT_DEVICE.get() or _DEVICES[chosen]
    values = {key.upper(): value for key, value in given.items()}
    if chosen == CPU:  # takes any options, as in ONNX Runtime: most say how it gets its memory
        values = {key: value for key, value in values.items() if key in properties.SETTABLE}
    properties.parse(values)
    return Placement(chosen, str(device), values, {str(k): str(v) for k, v in options.items()})


def _named(
    providers: Sequence[Any] | None, provider_options: Sequence[Mapping[Any, Any]] | None
) -> dict[str, Mapping[Any, Any]]:
    """The providers' names and options, in order. Warns of those that are not here."""
    if providers is None:
        return {}
    if isinstance(providers, str):
        providers = [providers]
    if not isinstance(providers, Sequence):
        raise BadValueError(f"'providers' should be a sequence, found {providers!r}")
    found: dict[str, Mapping[Any, Any]] = {}
    for name, options in _pairs(providers, provider_options):
        if name not in _DEVICES:
            warnings.warn(
                f"Specified provider '{name}' is not in available provider names."
                f"Available providers: '{', '.join(_DEVICES)}'",
                stacklevel=5,
            )
        if name in found:
            warnings.warn(f"Duplicate provider '{name}' encountered, ignoring.", stacklevel=5)
            continue
        found[name] = options
    return found


def _pairs(
    providers: Sequence[Any], provider_options: Sequence[Mapping[Any, Any]] | None
) -> list[tuple[str, Mapping[Any, Any]]]:
    if provider_options is None:
        return [_pair(provider) for provider in providers]
    if len(providers) != len(provider_options):
        raise BadValueError(
            "'providers' and 'provider_options' should be the same length if both are given."
        )
    if not all(isinstance(provider, str) for provider in providers):
        raise BadValueError(
            "Only string values for 'providers' are supported if 'provider_options' is given."
        )
    if not all(isinstance(options, Mapping) for options in provider_options):
        raise BadValueError("'provider_options' values must be dicts.")
    return list(zip(providers, provider_options, strict=True))


def _pair(provider: Any) -> tuple[str, Mapping[Any, Any]]:
    if isinstance(provider, str):
        return provider, {}
    if isinstance(provider, tuple) and len(provider) == 2:
        name, options = provider
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise BadValueError(
        f"'providers' values must be either strings or (string, dict) tuples, found {provider!r}"
    )
