"""`Model`: what `Core.read_model` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clinfer.errors import InputError, ModelError, ShapeError
from clinfer.graph.ir import Graph, Shape, Value
from clinfer.ports import Port, PortShape
from clinfer_kernels.dims import Dim, Expr, evaluate, substitute, sym, symbols

if TYPE_CHECKING:
    from clinfer.graph.protos import ExternalData

ShapeRequest = Sequence[int | str | None]


@dataclass(eq=False)
class Model:
    """A model that has been read and checked, with the shapes of its inputs open to change.

    `source` is the path it came from, or its bytes; `external_files` are the files beside it that
    hold tensors. Together they are the content that a cache key is made of; `shape_changes` says
    what `reshape` has made of the inputs ('' where nothing).
    """

    _graph: Graph
    source: Path | bytes
    external_files: tuple[Path, ...] = ()
    _declared: Mapping[str, PortShape | None] = field(default_factory=dict)
    _unnamed: frozenset[str] = frozenset()
    shape_changes: str = ""
    _external: ExternalData | None = None

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
        return tuple(self._port(v, v.name) for v in self._graph.inputs)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs in the model's order; dimensions computed from others have no name."""
        pairs = zip(self._graph.outputs, self._graph.output_names, strict=True)
        return tuple(self._port(value, name) for value, name in pairs)

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
        return self._graph.clone()

    def reshape(self, shapes: Mapping[str | int, ShapeRequest] | ShapeRequest) -> None:
        """Gives inputs, named or numbered, new shapes; with one input its shape alone will do.

        A dimension is a size, a name (the same name is the same size), or None or -1 for any size.
        Where a named dimension gets a size, other inputs that share the name get it too. Raises
        `InputError` for an unknown input, `ShapeError` where the graph cannot take the shapes; the
        model then stays as it was.
        """
        from clinfer.graph.shapes import infer

        if not isinstance(shapes, Mapping):
            if len(self._graph.inputs) != 1:
                raise InputError(f"one shape given for {len(self._graph.inputs)} inputs: name them")
            shapes = {0: shapes}
        changed = self._graph.clone()
        unnamed = set(self._unnamed)
        asked: dict[int, Shape] = {}
        bound: dict[str, Dim] = {}
        for key, request in shapes.items():
            index = self._index(key)
            value = changed.inputs[index]
            asked[index] = _new_shape(value, request, unnamed)
            _bind(value, asked[index], bound)
        for index, value in enumerate(changed.inputs):
            if index in asked:
                value.shape = asked[index]
            elif value.shape is not None:
                value.shape = tuple(substitute(d, bound) for d in value.shape)
        changed.constraints.clear()
        infer(changed)
        self._graph = changed
        self.shape_changes = "; ".join(f"{v.name}: {v.shape}" for v in changed.inputs)
        self._unnamed = frozenset(unnamed)

    def _index(self, key: str | int) -> int:
        names = [v.name for v in self._graph.inputs]
        if isinstance(key, int) and 0 <= key < len(names):
            return key
        if isinstance(key, str) and key in names:
            return names.index(key)
        raise InputError(f"the model has no input {key!r}; its inputs are {names}")

    def _port(self, value: Value, name: str) -> Port:
        shape: PortShape | None = None
        declared = self._declared.get(name)
        if value.shape is not None:
            if declared is None or len(declared) != len(value.shape):
                declared = (None,) * len(value.shape)
            pairs = zip(value.shape, declared, strict=True)
            shape = tuple(self._dimension(d, known) for d, known in pairs)
        elif declared is not None:
            shape = declared
        return Port(name, shape, value.dtype or "unknown")

    def _dimension(self, dim: Dim, declared: int | str | None) -> int | str | None:
        if isinstance(dim, int):
            return dim
        text = str(dim)
        if dim == sym(text):
            return None if text in self._unnamed else text
        return declared if isinstance(declared, str) else None


def bind_symbols(values: Sequence[Value], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sizes that dynamic dimensions have for inputs of these shapes.

    Raises `InputError` naming the input where a rank or a size does not fit the model.
    """
    bound: dict[str, int] = {}
    for value, actual in zip(values, shapes, strict=True):
        if value.shape is None:
            continue
        expected = list(value.shape)
        if len(expected) != len(actual):
            raise InputError(
                f"input '{value.name}': expected {len(expected)} dimensions {expected}, found "
                f"{list(actual)}"
            )
        for axis, (dim, size) in enumerate(zip(expected, actual, strict=True)):
            if isinstance(dim, Expr) and dim == sym(str(dim)):
                known = bound.setdefault(str(dim), int(size))
            else:
                known = evaluate(dim, bound) if symbols(dim) <= bound.keys() else int(size)
            if known != size:
                raise InputError(
                    f"input '{value.name}', axis {axis}: expected {dim}"
                    + (f" = {known}" if not isinstance(dim, int) else "")
                    + f", found {size} (shape {list(actual)})"
                )
    return bound


def _new_shape(value: Value, request: ShapeRequest, unnamed: set[str]) -> Shape:
    dims: list[Dim] = []
    for axis, size in enumerate(request):
        if isinstance(size, str):
            dims.append(sym(size))
        elif size is None or size == -1:
            name = f"{value.name}.{axis}"
            unnamed.add(name)
            dims.append(sym(name))
        elif int(size) < 0:
            raise ShapeError(f"input '{value.name}': {size} is not a size (-1 stands for any)")
        else:
            dims.append(int(size))
    if value.shape is not None and len(value.shape) != len(dims):
        raise ShapeError(
            f"input '{value.name}': expected {len(value.shape)} dimensions "
            f"{list(value.shape)}, found {list(request)}"
        )
    return tuple(dims)


def _bind(value: Value, shape: Shape, bound: dict[str, Dim]) -> None:
    """Notes what the new shape says about the named dimensions of the old one."""
    for old, new in zip(value.shape or (), shape, strict=False):
        if not isinstance(old, Expr) or old == new or old != sym(str(old)):
            continue
        known = bound.setdefault(str(old), new)
        if known != new:
            raise ShapeError(
                f"dimension '{old}' is {known} in one input and {new} in input '{value.name}'"
            )
