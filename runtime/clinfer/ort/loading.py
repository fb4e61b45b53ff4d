"""A session's model: opened, changed as the options say, compiled."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer import properties
from clinfer.core import Core
from clinfer.errors import ClinferError, ModelError, PropertyError
from clinfer.graph.signature import SignedModel
from clinfer.log import Log
from clinfer.ort import errors
from clinfer.ort.errors import as_status
from clinfer.ort.options import SessionOptions

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.models import ModelLike
    from clinfer.ort.providers import Placement

_LOG = Log(__name__)
_WARNING = 2  # of ONNX Runtime's severities

Source = str | os.PathLike[str] | bytes


@lru_cache(maxsize=1)
def core() -> Core:
    """The Core of all sessions: each device is opened once."""
    return Core()


def opened(source: Source, options: SessionOptions) -> SignedModel:
    """The model, with the initialisers that the options give it.

    Raises `NoSuchFile`, and `NotImplemented` for what the options ask for in vain.
    """
    if options.optimized_model_filepath:
        raise errors.NotImplemented(
            "optimized_model_filepath: clinfer makes no optimised ONNX file; what it has compiled "
            "is kept in the cache (provider option 'cache_dir', CLINFER_CACHE_DIR)"
        )
    if not isinstance(source, bytes) and not Path(source).exists():
        raise errors.NoSuchFile(
            f"Load model from {os.fspath(source)} failed:Load model {os.fspath(source)} failed. "
            f"File doesn't exist (looked in {Path.cwd()})"
        )
    signed = SignedModel(source)
    if not options._values:
        return signed
    return SignedModel(signed.with_values(options._values))


def compiled(signed: SignedModel, options: SessionOptions, place: Placement) -> CompiledModel:
    """The model compiled for a place. Raises errors with ONNX Runtime's status."""
    from clinfer.device.discover import one_device

    config = dict(place.properties)
    if options.enable_profiling:
        config[properties.PERF_COUNT] = True
    try:
        limit = _limit(options, place)
        given, device = _reshaped(signed, options), one_device(place.device)
        try:
            return core().compile_model(given, device, {**limit, **config})
        except PropertyError as error:
            if not limit or not str(error).startswith(properties.INFERENCE_NUM_THREADS):
                raise
            if options.log_severity_level <= _WARNING:
                _LOG.warning("intra_op_num_threads has no effect: %s", error)
            return core().compile_model(given, device, config)
    except ModelError as error:
        raise _unreadable(signed) or as_status(error) from error


def _limit(options: SessionOptions, place: Placement) -> dict[str, int]:
    """How many threads the options allow, where the device is a CPU: they are the CPU's."""
    threads = options.intra_op_num_threads
    if threads <= 0 or core().get_property(place.device, properties.DEVICE_TYPE) != "cpu":
        return {}
    return {properties.INFERENCE_NUM_THREADS: threads}


def _reshaped(signed: SignedModel, options: SessionOptions) -> ModelLike:
    """The model with the sizes that the options give to free dimensions."""
    names, meanings = options._names, options._denotations
    if not names and not meanings:
        return signed.source
    shapes: dict[str | int, list[int | str | None]] = {}
    for argument in signed.signature.inputs:
        if argument.shape is None:
            continue
        pairs = zip(argument.shape, argument.denotations, strict=True)
        wanted = [
            dim if isinstance(dim, int) else names.get(dim or "", meanings.get(text, dim))
            for dim, text in pairs
        ]
        if wanted != list(argument.shape):
            shapes[argument.name] = wanted
    model = core().read_model(signed.source)
    if shapes:
        model.reshape(shapes)
    return model


def _unreadable(signed: SignedModel) -> ClinferError | None:
    """The error for what is no ONNX model at all; None for a model with something wrong in it."""
    if signed.head[4:8] == b"ORTM":
        return errors.NotImplemented(
            "the model is in ONNX Runtime's own format (.ort): give the ONNX model it was made from"
        )
    try:
        _ = signed.signature
    except ModelError as error:
        kind = errors.NoGraph if error.__cause__ is None else errors.InvalidProtobuf
        return kind(error)
    return None
