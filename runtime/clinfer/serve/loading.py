"""One version of a model, loaded on its devices: from the cache where that has it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.errors import ClinferError, InputError, PropertyError, ShapeError, UnsupportedError
from clinfer.serve.batching import Arrays, Run
from clinfer.serve.repository import Group, ModelConfig
from clinfer.serve.tensors import DATATYPES

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.core import Core
    from clinfer.models import ModelLike
    from clinfer.ports import Port


_MODULES = (
    "clinfer.core_cache",
    "clinfer.device.discover",
    "clinfer.device.executor",
    "clinfer.device.programs",
    "clinfer.lowering.plan_io",
    "clinfer.plugins.cpu",
    "clinfer.plugins.gpu",
)
"""What `compile_model` imports where it is first called with a warm cache."""


def prepare() -> None:
    """Imports what loading is made of, and opens drivers: beside something else that takes time."""
    for name in _MODULES:
        import_module(name)
    from clinfer.device.discover import list_devices

    with suppress(ClinferError):  # which loading says again, with the model's name
        list_devices()


class Loaded(NamedTuple):
    """A model on its devices, with `counts` instances on each; `seconds` is clinfer's part."""

    path: Path
    compiled: tuple[CompiledModel, ...]
    counts: tuple[int, ...]
    seconds: float

    @property
    def runs(self) -> list[Run]:
        """One for each instance."""
        pairs = zip(self.compiled, self.counts, strict=True)
        return [run for model, count in pairs for run in [partial(_run, model)] * count]

    @property
    def inputs(self) -> tuple[Port, ...]:
        return self.compiled[0].inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        return self.compiled[0].outputs


def load(core: Core, path: Path, config: ModelConfig, device: str) -> Loaded:
    """The model of a file on the devices that `config` names, else on `device`; run once.

    Raises what `compile_model` raises - `CompileRequiredError` with CACHE_MODE 'cache-only' - and
    `UnsupportedError` for types that the protocol has no name for.
    """
    start = perf_counter()
    source = source_of(core, path, config)
    groups = [replace(group, device=group.device or device) for group in config.groups]
    compiled = tuple(_compiled(core, source, group, config) for group in groups)
    seconds = perf_counter() - start
    for port in (*compiled[0].inputs, *compiled[0].outputs):
        if port.dtype not in DATATYPES:
            raise UnsupportedError(
                f"{port.kind} '{port.name}' is {port.dtype}, which the protocol has no type for"
            )
    for model in compiled:
        _run_once(model)
    return Loaded(path, compiled, tuple(group.count for group in groups), seconds)


def source_of(core: Core, path: Path, config: ModelConfig) -> ModelLike:
    """What is compiled: the file itself, which the cache finds without reading it, if it can be."""
    if config.preprocessing is None and not config.gathers:
        return path
    model = core.read_model(path)
    if config.preprocessing is not None:
        from clinfer.preprocess.pictures import prepare

        try:
            prepare(model, **config.preprocessing)
        except TypeError as error:
            raise PropertyError(f"preprocessing: {error}") from None
    if config.gathers:
        from clinfer.virtual.batch import for_any_samples

        model = for_any_samples(model)
    return model


def _compiled(core: Core, source: ModelLike, group: Group, config: ModelConfig) -> CompiledModel:
    from clinfer.device.discover import one_device

    properties: Mapping[str, Any] = {"NUM_STREAMS": group.count, **config.properties}
    return core.compile_model(source, one_device(group.device), properties)


def _run(model: CompiledModel, inputs: Arrays) -> Arrays:
    return model(list(inputs)).to_tuple()


def _run_once(model: CompiledModel) -> None:
    """So that no client waits for what the first run allocates.

    Left out where the model takes text, or zeros of one sample do not fit it.
    """
    zeros = []
    for port in model.inputs:
        sizes = [
            1 if isinstance(size, str) or (axis == 0 and size is None) else size
            for axis, size in enumerate(port.shape or ())
        ]
        if port.shape is None or port.dtype not in dtypes.DEVICE_DTYPES or None in sizes:
            return
        zeros.append(np.zeros([int(size or 0) for size in sizes], dtypes.to_numpy(port.dtype)))
    try:
        _run(model, zeros)
    except (InputError, ShapeError):
        return
