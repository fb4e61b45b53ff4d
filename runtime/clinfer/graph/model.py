"""`Model`: what `Core.read_model` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.boundary import entry
from clinfer.errors import InputError, ModelError
from clinfer.graph.ir import Array, Graph, Shape, Value
from clinfer.graph.model_words import ModelWords
from clinfer.graph.namesakes import tell_apart
from clinfer.graph.shape_requests import (
    ShapeRequest,
    Size,
    bind_names,
    limits_text,
    new_shape,
    require_bounds,
)
from clinfer.ports import Port, index_of
from clinfer.sizes import Bounds, PortShape
from clinfer.synonyms import with_synonyms
from clinfer_kernels.dims import Dim, substitute, sym, symbols

if TYPE_CHECKING:
    from clinfer.cache.content import FileState
    from clinfer.graph.fragments import Fragment
    from clinfer.graph.protos import ExternalData
    from clinfer.operators.extensions import Extensions


class Edit(NamedTuple):
    """A change of a model after it was read: the method that makes it, and its argument."""

    kind: str
    content: Any

    def __str__(self) -> str:
        said = self.content.digest if self.kind == "attach" else list(self.content)
        return f"{self.kind} {said}"


@with_synonyms
@dataclass(eq=False, repr=False)
class Model(ModelWords):
    """A model that has been read and checked, with the shapes of its inputs open to change.

    `source` is the path it came from, or its bytes; `external_files` are the files beside it that
    hold tensors. Together they are the content that a cache key is made of; `shape_changes` says
    what was made of it since ('' where nothing), and `edits` how to do that again.
    """

    _graph: Graph
    source: Path | bytes
    external_files: tuple[Path, ...] = ()
    _declared: Mapping[str, PortShape | None] = field(default_factory=dict)
    _unnamed: frozenset[str] = frozenset()
    shape_changes: str = ""
    _external: ExternalData | None = None
    _bounds: Mapping[str, Bounds] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    friendly_name: str = ""
    _noted: dict[str, Any] = field(default_factory=dict)
    _owner: object = field(default_factory=object)  # of the ports, which no other model's equal
    states: tuple[FileState, ...] = ()
    """Of the files it was read from, when it was."""
    extensions: Extensions | None = None
    """What its Core had been given with `add_extension` when it was read."""

    def __post_init__(self) -> None:
        self.friendly_name = self.friendly_name or self._graph.name

    @property
    def name(self) -> str:
        """The graph's name in the file."""
        return self._graph.name

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's metadata: producer, domain, version, and its own properties."""
        return dict(self._graph.metadata)

    @property
    def opsets(self) -> Mapping[str, int]:
        """Version of each operator set the model imports; '' is ONNX's own."""
        return dict(self._graph.opsets)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs in the model's order, without those that have constant values."""
        pairs = enumerate(self._graph.inputs)
        return tuple(self._port(v, v.name, index, "input") for index, v in pairs)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs in the model's order; dimensions computed from others have no name."""
        pairs = zip(self._graph.outputs, self._graph.output_names, strict=True)
        return tuple(self._port(v, n, index, "output") for index, (v, n) in enumerate(pairs))

    def input(self, key: Any = 0) -> Port:
        """An input by name, index or port. Raises `InputError` where there is none."""
        return self.inputs[index_of(self.inputs, key, "input")]

    def output(self, key: Any = 0) -> Port:
        """An output by name, index or port. Raises `InputError` where there is none."""
        return self.outputs[index_of(self.outputs, key, "output")]

    @property
    def dynamic(self) -> bool:
        """Whether the shape of some input is not fixed."""
        return any(v.shape is None or any(map(symbols, v.shape)) for v in self._graph.inputs)

    def graph(self) -> Graph:
        """A graph of its own for the caller, with types inferred; passes may change it.

        Raises `ModelError` where a large file of the model, whose tensors are not read before they
        are needed, has changed since `read_model`.
        """
        changed = [] if self._external is None else self._external.changed
        if changed:
            raise ModelError(
                f"'{changed[0]}' has changed since the model was read; call read_model again"
            )
        graph = self._graph.clone()
        renamed = tell_apart(graph)
        if renamed:
            from clinfer.graph.shapes import infer

            own = {new: self._bounds[old] for new, old in renamed.items() if old in self._bounds}
            graph.constraints.clear()
            graph.joins.clear()
            require_bounds(graph, {**self._bounds, **own})
            infer(graph)
        return graph

    @entry("reshape", partial_shapes="shapes")
    def reshape(self, shapes: Mapping[Any, ShapeRequest] | ShapeRequest) -> None:
        """Gives inputs, by name, number or port, new shapes; with one input its shape will do.

        A shape is a list, text ('?,3,8') or a `PartialShape`. A dimension is a size, a name (the
        same name is the same size), None, -1 or '?' for any, or the least and the greatest size:
        (1, 8) or '1..8'; a run with another one is an error. Where a named dimension gets a size,
        other inputs that share the name get it too. Raises `InputError` for an unknown input,
        `ShapeError` where the graph cannot take the shapes; the model then stays as it was.
        """
        from clinfer.graph.shapes import infer

        if not isinstance(shapes, Mapping):
            if len(self._graph.inputs) != 1:
                raise InputError(f"one shape given for {len(self._graph.inputs)} inputs: name them")
            shapes = {0: shapes}
        changed = self._graph.clone()
        unnamed = set(self._unnamed)
        bounds = dict(self._bounds)
        asked: dict[int, Shape] = {}
        bound: dict[str, Dim] = {}
        for key, request in shapes.items():
            index = index_of(self.inputs, key, "input")
            value = changed.inputs[index]
            asked[index] = new_shape(value, request, unnamed, bounds)
            bind_names(value, asked[index], bound)
        for index, value in enumerate(changed.inputs):
            if index in asked:
                value.shape = asked[index]
            elif value.shape is not None:
                value.shape = tuple(substitute(d, bound) for d in value.shape)
        changed.constraints.clear()
        changed.joins.clear()
        require_bounds(changed, bounds)
        infer(changed)
        self._graph = changed
        self._unnamed = frozenset(unnamed)
        self._bounds = bounds
        self._note("reshape", tuple(self.requested()))

    @entry("add_outputs")
    def add_outputs(self, outputs: Any) -> list[Port]:
        """Makes tensors of the graph outputs too, and returns the ports.

        One or a list of: a tensor's name, (a node's name, the number of its output), a port.
        Raises `InputError` for what the graph does not compute.
        """
        several = isinstance(outputs, list)
        known = {value.name: value for value in self._graph.values()}
        names = [self._tensor_name(key, known) for key in (outputs if several else [outputs])]
        changed = self._graph.clone()
        values = {value.name: value for value in changed.values()}
        for name in names:
            if name not in changed.output_names:
                changed.outputs = [*changed.outputs, values[name]]
                changed.output_names.append(name)
        self._graph = changed
        self._note("add_outputs", tuple(names))
        return [self.output(name) for name in names]

    def _tensor_name(self, key: Any, known: Mapping[str, Value]) -> str:
        if isinstance(key, tuple) and len(key) == 2:
            node, number = key
            made = [n.outputs for n in self._graph.nodes if n.name == node]
            if made and isinstance(number, int) and 0 <= number < len(made[0]):
                found = made[0][number]
                if found is not None:
                    return found.name
            raise InputError(f"the model has no node {node!r} with an output {number!r}")
        name = key.name if isinstance(key, Port) else key
        if isinstance(name, str) and name in known:
            return name
        raise InputError(f"the model computes no tensor {name!r}; see get_ordered_ops()")

    def _note(self, kind: str, content: Any) -> None:
        """Keeps an edit, and what the cache's key says about all of them."""
        again = kind == "reshape" and self.edits[-1:] and self.edits[-1].kind == kind
        self.edits = (*(self.edits[:-1] if again else self.edits), Edit(kind, content))
        shapes = [f"{v.name}: {v.shape}{limits_text(v, self._bounds)}" for v in self._graph.inputs]
        others = [f" + {edit}" for edit in self.edits if edit.kind != "reshape"]
        self.shape_changes = "; ".join(shapes) + "".join(others)

    def __repr__(self) -> str:
        from clinfer.api.text import model_text

        return model_text(self)

    def _repr_html_(self) -> str:
        from clinfer.api.text import model_html

        return model_html(self)

    # -- for the runtime -------------------------------------------------------------------------

    @entry("attach")
    def attach(self, fragment: Fragment) -> None:
        """Puts nodes in front of inputs and behind outputs, as `clinfer.preprocess` makes them.

        Raises `ShapeError` where they do not fit; the model then stays as it was.
        """
        from clinfer.graph.fragments import attach

        changed = self._graph.clone()
        unnamed, bounds = set(self._unnamed), dict(self._bounds)
        made: dict[str, Value] = {}
        for _, news in fragment.inputs:
            for name, dtype, sizes in news:
                value = made[name] = Value(name, dtype)
                value.shape = None if sizes is None else new_shape(value, sizes, unnamed, bounds)
        changed.constraints.clear()
        changed.joins.clear()
        attach(changed, fragment, made)
        require_bounds(changed, bounds)
        self._graph = changed
        self._unnamed, self._bounds = frozenset(unnamed), bounds
        gone = {*fragment.outputs, *(name for name, _ in fragment.inputs)}
        self._declared = {name: s for name, s in self._declared.items() if name not in gone}
        self._note("attach", fragment)

    def contents(self, names: Sequence[str]) -> list[Array | None]:
        """The bytes it was read from, as they lie in memory: its own, then those of each file.

        `names` are of files beside the model; None for what was not read.
        """
        if isinstance(self.source, bytes):
            return [np.frombuffer(self.source, np.uint8)]
        folder = self.source.absolute().parent
        found = {} if self._external is None else self._external.contents
        beside = {
            os.path.relpath(path.absolute(), folder): content
            for path, content in found.items()
            if path is not None
        }
        return [found.get(None), *(beside.get(name) for name in names)]

    def redo(self, edits: Sequence[Edit]) -> None:
        """Makes the `edits` of another model that was read from the same content."""
        for edit in edits:
            content = dict(edit.content) if edit.kind == "reshape" else edit.content
            getattr(self, edit.kind)(list(content) if edit.kind == "add_outputs" else content)

    def take(self, other: Model) -> None:
        """Becomes what a clone has become; its ports stay this model's."""
        vars(self).update({**vars(other), "_owner": self._owner})

    def requested(self) -> list[tuple[str, tuple[Size, ...]]]:
        """The inputs' shapes as `reshape` takes them, to make the same changes elsewhere."""
        return [
            (p.name, tuple(p.bounds.get(axis, size) for axis, size in enumerate(p.shape)))
            for p in self.inputs
            if p.shape is not None
        ]

    def clone(self) -> Model:
        """A model of its own, with the same content and changes."""
        return replace(self, _graph=self._graph.clone(), _noted=dict(self._noted), _owner=object())

    def _port(self, value: Value, name: str, index: int, kind: str) -> Port:
        shape: PortShape | None = None
        declared = self._declared.get(name)
        if value.shape is not None:
            if declared is None or len(declared) != len(value.shape):
                declared = (None,) * len(value.shape)
            pairs = zip(value.shape, declared, strict=True)
            shape = tuple(self._dimension(d, known) for d, known in pairs)
        elif declared is not None:
            shape = declared
        bounds = {
            i: self._bounds[str(d)]
            for i, d in enumerate(value.shape or ())
            if str(d) in self._bounds
        }
        return Port(name, shape, value.dtype or "unknown", index, kind, bounds, self._owner)

    def _dimension(self, dim: Dim, declared: int | str | None) -> int | str | None:
        if isinstance(dim, int):
            return dim
        text = str(dim)
        if dim == sym(text):
            return None if text in self._unnamed else text
        return declared if isinstance(declared, str) else None
