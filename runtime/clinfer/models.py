"""Models as users give them: read, and named by the digest of their content for the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

from clinfer.boundary import first_line
from clinfer.errors import InputError, ModelError
from clinfer.mapping import MappedFile, is_file

if TYPE_CHECKING:
    from onnx import ModelProto

    from clinfer.cache.content import ContentDigest, FileState
    from clinfer.cache.layers import Layers
    from clinfer.graph.ir import Array
    from clinfer.graph.model import Edit, Model
    from clinfer.operators.extensions import Extensions
    from clinfer.plugins.base import Source

ModelLike = Union["Model", str, "os.PathLike[str]", bytes, "ModelProto"]


class Origin(NamedTuple):
    """The file that a model was compiled from, and what was made of the model since.

    `digest` names its content; where that is None, `files` says what was read.
    """

    path: Path
    digest: str | None
    files: tuple[FileState, ...]
    edits: tuple[Edit, ...] = ()
    extensions: Extensions | None = None

    def digested(self) -> str:
        """The digest of what was compiled. Raises `ModelError` where that is not there any more."""
        from clinfer.cache.content import content_digest

        if self.digest is not None:
            return self.digest
        names = [state.name for state in self.files[1:]]
        found = content_digest(self.path, lambda _: names)
        if found.files != self.files:
            raise ModelError(
                f"'{self.path}' has changed since the model was read, which is therefore not "
                "pickled: compile it again"
            )
        return found.digest


class _Files:
    """As `clinfer.plugins.base.Files`: those of a digest, or a model's bytes where that is None."""

    def __init__(self, model: Callable[[], Model], digest: ContentDigest | None) -> None:
        self._model = model
        self._digest = digest
        self._opened: dict[int, MappedFile] = {}

    def content(self, number: int) -> Array:
        if self._digest is None:
            (content,) = self._model().contents(())
            return (content,)[number]  # type: ignore[return-value]
        if number not in self._opened:
            self._opened[number] = self._digest.opened(number)
        return self._opened[number].content

    def read(self) -> list[Array | None]:
        return self._model().contents(() if self._digest is None else self._digest.external)


class Models:
    """Reads models, and notes which state of their files they are of.

    `extensions` are the operators and functions that the program adds to ONNX's.
    """

    def __init__(self, extensions: Extensions | None = None) -> None:
        self.extensions = extensions

    def read(self, model: ModelLike | BinaryIO) -> Model:
        """As `Core.read_model`."""
        from clinfer.graph.reader import read

        model = _content(model)
        path = Path(model) if isinstance(model, (str, os.PathLike)) else None
        if path is None or not is_file(path):
            return read(model, self.extensions)  # type: ignore[arg-type]  # what it is not it says itself
        from clinfer.cache.content import file_states

        before = file_states(path)
        found = read(path, self.extensions)
        states = file_states(path, external_names(found))
        if states[:1] == before:
            found.states = states
        return found

    def source(self, model: ModelLike, cache: Layers | None, mode: str = "off") -> Source:
        """What is compiled, with its digest where there is a cache of compiled models.

        Of a file it is known too where CACHE_MODE, `mode`, lets an installed seed be used.
        """
        from clinfer.plugins.base import Source

        if not isinstance(model, (str, os.PathLike)):
            read = self.given(model)
            digest, files = self._digest_of_read(read, cache)
            return Source(
                lambda: read,
                digest,
                read.shape_changes,
                extensions=read.extensions,
                files=files,
            )
        path = Path(model)
        held: list[Model] = []

        def read_once() -> Model:
            if not held:
                held.append(self.read(path))
            return held[0]

        from clinfer.cache.seed import open_seed

        seed = open_seed() if mode != "off" else None
        if (cache is None and seed is None) or not is_file(path):
            return Source(read_once, None, extensions=self.extensions)
        from clinfer.cache.content import content_digest

        memo = None if cache is None else cache.writable
        content = content_digest(path, lambda _: external_names(read_once()), memo, seed)
        return Source(
            read_once,
            content.digest,
            unchanged=content.unchanged,
            extensions=self.extensions,
            files=_Files(read_once, content),
        )

    def kept(self, model: ModelLike, cache: Layers | None) -> tuple[Source, Origin | None]:
        """As `source` and `origin`, for a model that is read again later, in another thread.

        What the user changes in it meanwhile is not in it.
        """
        given = model if isinstance(model, (str, os.PathLike)) else self.given(model).clone()
        source = self.source(given, cache)
        return source, self.origin(given, source)

    def origin(self, model: ModelLike, source: Source) -> Origin | None:
        """Where what was compiled comes from; None where that is no file."""
        given = model if isinstance(model, (str, os.PathLike)) else None
        if given is not None and source.digest is not None:
            path = Path(given).absolute()
            return Origin(path, source.digest, (), extensions=source.extensions)
        read = source.read()
        if isinstance(read.source, bytes):
            return None
        path = read.source.absolute()
        return Origin(path, source.digest, read.states, read.edits, read.extensions)

    def digested(self, model: ModelLike) -> Source:
        """What would be compiled, with the digest of its content as it is now."""
        from clinfer.cache.content import bytes_digest, content_digest
        from clinfer.plugins.base import Source

        read = self.given(model)
        if isinstance(read.source, bytes):
            digest = bytes_digest(read.source)
            return Source(lambda: read, digest, read.shape_changes, extensions=read.extensions)
        names = external_names(read)
        digest = content_digest(read.source, lambda _: names, None).digest
        return Source(lambda: read, digest, read.shape_changes, extensions=read.extensions)

    def _digest_of_read(
        self, model: Model, cache: Layers | None
    ) -> tuple[str | None, _Files | None]:
        """The digest of a model read before, and its files; None where they have changed since."""
        if cache is None:
            return None, None
        from clinfer.cache.content import bytes_digest, content_digest

        if isinstance(model.source, bytes):
            return bytes_digest(model.source), _Files(lambda: model, None)
        names = external_names(model)
        content = content_digest(model.source, lambda _: names, cache.writable)
        if content.files != model.states:
            return None, None
        return content.digest, _Files(lambda: model, content)

    def given(self, model: ModelLike) -> Model:
        """The model that a user gives in one of its forms, read where it is not read yet."""
        from clinfer.graph.model import Model

        if isinstance(model, Model):
            return model
        model = _content(model)
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


def _content(model: Any) -> Any:
    """The bytes of a file that is open for reading them; anything else as it is."""
    if isinstance(model, (bytearray, memoryview)):
        return bytes(model)
    if not hasattr(model, "read") or isinstance(model, os.PathLike):
        return model
    try:
        content = model.read()
    except Exception as error:  # the file object is the user's
        raise InputError(f"read_model cannot read the file: {first_line(error)}") from error
    if not isinstance(content, bytes):
        raise InputError("read_model reads a file opened with open(path, 'rb')")
    return content


def _is_proto(model: object) -> bool:
    return hasattr(model, "SerializeToString") and hasattr(model, "graph")
