"""Models as users give them: read, and named by the digest of their content for the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union
from weakref import WeakKeyDictionary

from clinfer.errors import InputError
from clinfer.mapping import is_file

if TYPE_CHECKING:
    from onnx import ModelProto

    from clinfer.cache.content import FileState
    from clinfer.cache.layers import Layers
    from clinfer.graph.model import Model
    from clinfer.plugins.base import Source

ModelLike = Union["Model", str, "os.PathLike[str]", bytes, "ModelProto"]


class Models:
    """Reads models, and remembers which state of their files they are of."""

    def __init__(self) -> None:
        self._states: WeakKeyDictionary[Model, tuple[FileState, ...]] = WeakKeyDictionary()

    def read(self, model: str | os.PathLike[str] | bytes | ModelProto) -> Model:
        """As `Core.read_model`."""
        from clinfer.graph.reader import read

        path = Path(model) if isinstance(model, (str, os.PathLike)) else None
        if path is None or not is_file(path):
            return read(model)
        from clinfer.cache.content import file_states

        before = file_states(path)
        found = read(path)
        states = file_states(path, external_names(found))
        if states[:1] == before:
            self._states[found] = states
        return found

    def source(self, model: ModelLike, cache: Layers | None) -> Source:
        """What is compiled, with its digest where there is a cache of compiled models."""
        from clinfer.plugins.base import Source

        if not isinstance(model, (str, os.PathLike)):
            read = self.given(model)
            return Source(lambda: read, self._model_digest(read, cache), read.shape_changes)
        path = Path(model)
        held: list[Model] = []

        def read_once() -> Model:
            if not held:
                held.append(self.read(path))
            return held[0]

        if cache is None or not is_file(path):
            return Source(read_once, None)
        from clinfer.cache.content import content_digest

        content = content_digest(path, lambda _: external_names(read_once()), cache.writable)
        return Source(read_once, content.digest, unchanged=content.unchanged)

    def digested(self, model: ModelLike) -> Source:
        """What would be compiled, with the digest of its content as it is now."""
        from clinfer.cache.content import bytes_digest, content_digest
        from clinfer.plugins.base import Source

        read = self.given(model)
        if isinstance(read.source, bytes):
            return Source(lambda: read, bytes_digest(read.source), read.shape_changes)
        names = external_names(read)
        digest = content_digest(read.source, lambda _: names, None).digest
        return Source(lambda: read, digest, read.shape_changes)

    def _model_digest(self, model: Model, cache: Layers | None) -> str | None:
        """The digest of a model read before; None where its files have changed since."""
        if cache is None:
            return None
        from clinfer.cache.content import bytes_digest, content_digest

        if isinstance(model.source, bytes):
            return bytes_digest(model.source)
        names = external_names(model)
        content = content_digest(model.source, lambda _: names, cache.writable)
        return content.digest if content.files == self._states.get(model) else None

    def given(self, model: ModelLike) -> Model:
        """The model that a user gives in one of its forms, read where it is not read yet."""
        from clinfer.graph.model import Model

        if isinstance(model, Model):
            return model
        if not isinstance(model, (str, os.PathLike, bytes)) and not _is_proto(model):
            raise InputError(
                f"a model is a path, bytes, an onnx.ModelProto or what read_model returns; "
                f"found {type(model).__name__}"
            )
        return self.read(model)


def external_names(model: Model) -> list[str]:
    """The model's external data files, relative to its folder."""
    if isinstance(model.source, bytes):
        return []
    folder = model.source.absolute().parent
    return [os.path.relpath(file.absolute(), folder) for file in model.external_files]


def _is_proto(model: object) -> bool:
    return hasattr(model, "SerializeToString") and hasattr(model, "graph")
