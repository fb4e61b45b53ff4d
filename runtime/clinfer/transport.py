"""Compiled models sent to other processes: what a pickle holds, and how it becomes a model again.

A model from a file is pickled as the file's path and the digest of its content, the device and the
properties: where it arrives it is compiled again, or comes from CACHE_DIR. One from memory, or from
a blob, is pickled as its blob, where the device exports models, with the Python functions it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.errors import DeviceError, ModelError
from clinfer.models import Models, Origin
from clinfer.properties import CPU_TARGET, INFERENCE_PRECISION_HINT
from clinfer.settings import Settings, settled

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.compiled import CompiledModel
    from clinfer.graph.model import Edit
    from clinfer.operators.extensions import Extensions
    from clinfer.plugins.base import Plugin, Request, Source

_KEPT = 4
"""Models that stay loaded in a process they were sent to: they often come with every task."""

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def reduced(model: CompiledModel, origin: Origin | None) -> Reduced:
    """For `CompiledModel.__reduce__`.

    Raises `ModelError` where the model's files have changed since they were read, `DeviceError`
    for a model without a file on a device that exports none.
    """
    device, settings = model.device.info.name, settled(model._settings)
    if origin is not None:
        place = (str(origin.path), origin.digested(), origin.edits, origin.extensions)
        return _restored, (type(model), *place, device, tuple(settings.items()))
    try:
        blob = model.export_model()
    except DeviceError as error:
        raise DeviceError(
            f"a model on {device} that was not compiled from a file is not pickled: {error}; "
            "write the model to a file, and compile that"
        ) from error
    return _imported, (type(model), blob, device, settings, model._loaded.executable.called)


@lru_cache(maxsize=_KEPT)
def _restored(
    kind: type[CompiledModel],
    path: str,
    digest: str,
    edits: tuple[Edit, ...],
    extensions: Extensions | None,
    device: str,
    settings: tuple[tuple[str, Any], ...],
) -> CompiledModel:
    """The model of a file. Raises `ModelError` where the file is not the one it was made of."""
    plugin, request = _request(device, dict(settings))
    cache = request.cache if plugin.export_import else None
    source, origin = found_again(Models(extensions), path, digest, edits, cache)
    loaded = plugin.compile(source, request)
    return kind(loaded, plugin, request.device, request.properties, origin)


def found_again(
    models: Models, path: str, digest: str, edits: tuple[Edit, ...], cache: Layers | None
) -> tuple[Source, Origin]:
    """What a model was compiled from. Raises `ModelError` where the file is another one."""
    read = models.read(path) if edits else path
    if not isinstance(read, str):
        read.redo(edits)
    source = models.source(read, cache)
    if source.digest is None:
        source = models.digested(read)
    if source.digest != digest:
        raise ModelError(
            f"'{path}' is not the file that the model was compiled from: its content has the "
            f"digest {source.digest}, expected {digest}; compile the model again and send that"
        )
    return source, Origin(Path(path), digest, (), edits, models.extensions)


def _imported(
    kind: type[CompiledModel],
    blob: bytes,
    device: str,
    settings: Mapping[str, Any],
    extensions: Extensions | None,
) -> CompiledModel:
    """The model in a blob. Raises `BlobError` where it was made for another device or driver."""
    plugin, request = _request(device, settings)
    loaded = plugin.load_blob(blob, request._replace(extensions=extensions))
    return kind(loaded, plugin, request.device, request.properties)


def _request(device: str, values: Mapping[str, Any]) -> tuple[Plugin, Request]:
    from clinfer.device.discover import open_device
    from clinfer.plugins import plugin_for
    from clinfer.plugins.base import Request

    opened = open_device(device)
    settings = Settings()
    effective = settings.effective(opened.info.name, values)
    opened = opened.aimed(effective[CPU_TARGET])
    opened = opened.at_precision(effective[INFERENCE_PRECISION_HINT])
    opened.require_runs()
    return plugin_for(opened), Request(opened, effective, settings.cache(effective))


def forget() -> None:
    """Gives back the models that stay loaded."""
    _restored.cache_clear()
