"""Models on several devices compiled, and sent to other processes: as the file they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from clinfer.errors import DeviceError
from clinfer.models import Models
from clinfer.properties import CPU_TARGET, PERFORMANCE_HINT, THROUGHPUTS
from clinfer.settings import Settings, settled
from clinfer.transport import Reduced, found_again
from clinfer.virtual.model import VirtualModel
from clinfer.virtual.parts import Part, Recipe

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.asked import Asked
    from clinfer.device.discover import Device
    from clinfer.graph.model import Edit
    from clinfer.models import Origin
    from clinfer.operators.extensions import Extensions
    from clinfer.virtual.base import Group


_MODES = {"AUTO": "auto", "MULTI": "multi", "HETERO": "hetero", "BATCH": "batch"}


def compile_virtual(asked: Asked, recipe: Recipe, parts: Sequence[Part]) -> VirtualModel:
    """The model on the devices that a name stands for, one part each, in their order.

    Raises what compiling for one of them raises, as docs/devices.md says.
    """
    if asked.mode == "AUTO" and parts[0].settings[PERFORMANCE_HINT] == THROUGHPUTS[1]:
        asked = asked._replace(mode="MULTI")
    settings: Mapping[str, Mapping[str, object]] = {part.device: part.settings for part in parts}
    make: Callable[[Asked, Recipe, Sequence[Part]], Group]
    make = import_module(f"clinfer.virtual.{_MODES[asked.mode]}").make
    return VirtualModel(make(asked, recipe, parts), asked, settings, recipe.origin, _reduced)


def _reduced(
    name: str, settings: Mapping[str, Mapping[str, Any]], origin: Origin | None
) -> Reduced:
    """For `VirtualModel.__reduce__`.

    Raises `DeviceError` for a model without a file, `ModelError` where that has changed.
    """
    if origin is None:
        raise DeviceError(
            f"a model on {name} that was not compiled from a file is not pickled: it has no blob; "
            "write the model to a file, and compile that"
        )
    sent = {device: settled(values) for device, values in settings.items()}
    place = (str(origin.path), origin.digested(), origin.edits, origin.extensions)
    return _restored, (*place, name, sent)


def _restored(
    path: str,
    digest: str,
    edits: tuple[Edit, ...],
    extensions: Extensions | None,
    name: str,
    settings: Mapping[str, Mapping[str, Any]],
) -> CompiledModel:
    """The model of a file on the devices of that name which are here, each with its properties."""
    from clinfer.device.discover import asked_for

    asked, caches = asked_for(name), Settings()
    parts = []
    for device in asked.devices:
        values = caches.effective(device, settings.get(device))
        parts.append(
            Part(
                device,
                values,
                caches.cache(values),
                lru_cache(1)(partial(_opened, device, values[CPU_TARGET])),
            )
        )
    cache = next((part.cache for part in parts if part.cache is not None), None)
    source, origin = found_again(Models(extensions), path, digest, edits, cache)
    recipe = Recipe(source, origin)
    return compile_virtual(asked, recipe, parts) if asked.mode else recipe.model(parts[0])


def _opened(name: str, cpu_target: str) -> Device:
    from clinfer.device.discover import open_device

    opened = open_device(name, cpu_target)
    opened.require_runs()
    return opened
