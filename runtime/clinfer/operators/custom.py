"""Operators that a program adds to a Core: what they take and give, declared.

A `CustomOperator` says as much of an operator as onnx's schema and our record say of others: the
inputs, the outputs with dtype and shape, the attributes. How it is computed a subclass says: by a
Python function (a host step), or by OpenCL C (`custom_kernel`). Nothing here imports another room.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer.dtypes import BY_NAME
from clinfer.errors import ExtensionError, ModelError, listed
from clinfer.operators.custom_code import code_text
from clinfer.operators.custom_types import Attribute, Input, Output, TensorType, is_type
from clinfer.operators.size_text import Known, SizeText
from clinfer.sha256 import sha256
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

Shape = tuple[Dim, ...]

_NAME = re.compile(r"([A-Za-z_][\w.-]*)::([A-Za-z_]\w*)")
_WORD = re.compile(r"[A-Za-z_]\w*")
# The kinds of attributes, as `AttributeProto.type` numbers them, by Python's types.
_ATTRIBUTES: dict[Any, int] = {float: 1, int: 2, str: 3}
_LISTS: dict[Any, int] = {float: 6, int: 7, str: 8}


class CustomOperator:
    """An operator of a domain of its own, as `Core.add_extension` takes it.

    `name` is 'domain::Operator'. `inputs` are dtypes, or pairs of dtypes and a shape, by name: a
    dtype is a word ('float32'), several words, or None for any; a shape lists names of dimensions
    and sizes, where the same name is the same size, is the name of an input before it that has the
    same shape, or None for any. `outputs` are pairs by name: a dtype, or the name of the input that
    has the same; a shape that lists sizes (`size_text`), or the name of the input that has the
    same. With `types` the outputs are names, and `types(*inputs, **attributes)`, given a
    `TensorType` for each input when the graph is made, returns (dtype, shape) for each output.
    `attributes` are defaults by name, or a type (`float`, `int`, `str`, `list[int]` ...) where a
    model must give one.

    Raises `ExtensionError` for what is declared wrongly.
    """

    reason = ""
    """Why it is a host step; empty for what has a kernel."""
    unknown_sizes = False
    """Whether sizes of results may be left open (None) until the run."""

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Any,
        attributes: Mapping[str, Any] | None = None,
        types: Callable[..., Any] | None = None,
    ) -> None:
        found = _NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None:
            raise ExtensionError(f"an operator's name is 'domain::Operator', found {name!r}")
        self.name = name
        self.domain, self.op = found.groups()
        self._types = types
        self.attributes = {
            self._word(key, "an attribute"): self._attribute(key, value)
            for key, value in self._mapping(attributes or {}, "attributes").items()
        }
        self.inputs: tuple[Input, ...] = ()
        for key, value in self._mapping(inputs, "inputs").items():
            self.inputs += (self._input(self._word(key, "an input"), value),)
        shapes = [i.shape for i in self.inputs if i.shape is not None]
        self.dimensions = frozenset(d for shape in shapes for d in shape if isinstance(d, str))
        self._require_apart()
        self.outputs = self._outputs(outputs)
        if not self.outputs:
            raise self.error("it has no outputs")

    @property
    def kind(self) -> str:
        """As `Node.kind` has it."""
        return f"{self.domain}.{self.op}"

    @property
    def digest(self) -> str:
        """SHA-256 over all that is declared, in hex: part of the cache's key."""
        text = json.dumps([type(self).__name__, *self._content()], sort_keys=True, default=str)
        return sha256(text.encode()).hexdigest()

    def _content(self) -> list[Any]:
        outputs = [
            (o.name, o.dtype, [s and s.text for s in o.shape])
            if isinstance(o.shape, tuple)
            else tuple(o)
            for o in self.outputs
        ]
        inputs = [(i.name, sorted(i.dtypes), i.shape, i.like) for i in self.inputs]
        types = None if self._types is None else code_text(self._types)
        return [self.name, inputs, outputs, self.attributes, types]

    def error(self, what: str) -> ExtensionError:
        """An error of the declaration."""
        return ExtensionError(f"extension '{self.name}': {what}")

    # -- what is asked of a node -----------------------------------------------------------------

    def values(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """A node's attributes, with defaults for those it leaves out."""
        given = {name: known.default for name, known in self.attributes.items()}
        return {**given, **attrs}

    def known(self, attrs: Mapping[str, Any], shapes: Sequence[Shape | None]) -> Known:
        """What expressions of sizes may name for one node."""
        sizes: dict[str, Dim] = {}
        for declared, shape in zip(self.inputs, shapes, strict=True):
            for name, size in zip(declared.shape or (), shape or (), strict=False):
                if isinstance(name, str):
                    sizes.setdefault(name, size)
        values = self.values(attrs)
        sizes.update((n, int(values[n])) for n, a in self.attributes.items() if a.kind == 2)
        pairs = zip(self.inputs, shapes, strict=True)
        return Known(sizes, {i.name: shape for i, shape in pairs if shape is not None})

    def types(self, call: Call) -> list[TensorType]:
        """The outputs' types. Raises `ModelError`, `ShapeError` where the inputs do not fit."""
        given = [self._given(call, index) for index in range(len(self.inputs))]
        if self._types is not None:
            return self._asked(call, given)
        known = self.known(call.node.attrs, [t.shape for t in given])
        return [self._given_type(call, number, given, known) for number in range(len(self.outputs))]

    def _given(self, call: Call, index: int) -> TensorType:
        """The type of an input of a node, which must be one that is declared."""
        declared, value = self.inputs[index], call.value(index)
        where = f"{call.node.describe()}: input {index} ('{declared.name}')"
        if value.dtype not in declared.dtypes:
            raise ModelError(
                f"{where}: one of {listed(sorted(declared.dtypes))} expected, found {value.dtype}"
            )
        if declared.like:
            self._require_like(call, index)
        if declared.shape is None:
            return TensorType(value.dtype, value.shape)
        shape = call.shape(index) if value.shape is not None else None
        if shape is None:
            return TensorType(value.dtype, None)
        if len(shape) != len(declared.shape):
            raise call.error(
                f"input {index} ('{declared.name}') has {len(declared.shape)} dimensions "
                f"{list(declared.shape)}, found {len(shape)}"
            )
        for axis, name in enumerate(declared.shape):
            first = name if isinstance(name, int) else self._first(call, name)
            if first is not None:
                call.equal(first, shape[axis], f"'{name}' and axis {axis} of '{declared.name}'")
        return TensorType(value.dtype, shape)

    def _require_like(self, call: Call, index: int) -> None:
        """An input declared to have another one's shape has it, as far as that is known."""
        name, like = self.inputs[index].name, self.inputs[index].like
        other = call.value([i.name for i in self.inputs].index(like)).shape
        shape = call.value(index).shape
        if shape is None or other is None:
            return
        if len(shape) != len(other):
            raise call.error(
                f"'{name}' has the shape of '{like}', {len(other)} dimensions; found {len(shape)}"
            )
        for axis, (left, right) in enumerate(zip(other, shape, strict=True)):
            call.equal(left, right, f"axis {axis} of '{like}' and of '{name}'")

    def _first(self, call: Call, name: str) -> Dim | None:
        """The first size that a name of a dimension stands for."""
        for index, declared in enumerate(self.inputs):
            shape = call.value(index).shape
            if shape is not None and name in (declared.shape or ()):
                axis = (declared.shape or ()).index(name)
                return shape[axis] if axis < len(shape) else None
        return None

    def _given_type(
        self, call: Call, number: int, given: Sequence[TensorType], known: Known
    ) -> TensorType:
        declared = self.outputs[number]
        by_name = {i.name: t for i, t in zip(self.inputs, given, strict=True)}
        dtype = by_name[declared.dtype].dtype if declared.dtype in by_name else declared.dtype
        if isinstance(declared.shape, str):
            return TensorType(dtype, by_name[declared.shape].shape)
        assert declared.shape is not None
        try:
            sizes = [None if size is None else size(known) for size in declared.shape]
        except KeyError:  # of an input whose rank nobody knows
            return TensorType(dtype, None)
        return TensorType(dtype, self._completed(call, number, sizes))

    def _completed(self, call: Call, number: int, sizes: Sequence[Dim | None]) -> Shape:
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise call.error(f"output '{self.outputs[number].name}' would have the shape {sizes}")
        pairs = enumerate(sizes)
        return tuple(call.fresh(number, axis) if d is None else d for axis, d in pairs)

    def _asked(self, call: Call, given: Sequence[TensorType]) -> list[TensorType]:
        """What the author's function says of the outputs."""
        assert self._types is not None
        where = f"{call.node.describe()}: the function of types of extension '{self.name}'"
        try:
            answer = self._types(*given, **self.values(call.node.attrs))
        except Exception as error:
            raise ExtensionError(f"{where} has raised {type(error).__name__}: {error}") from error
        if len(self.outputs) == 1 and isinstance(answer, tuple) and isinstance(answer[0], str):
            answer = [answer]
        found = list(answer) if isinstance(answer, (list, tuple)) else [answer]
        if len(found) != len(self.outputs) or not all(map(is_type, found)):
            raise ExtensionError(
                f"{where} has returned {answer!r}; (dtype, shape) expected for each of the "
                f"{len(self.outputs)} outputs, a size being an integer, an expression"
                + (" or None" if self.unknown_sizes else "")
            )
        made = []
        for number, (dtype, shape) in enumerate(found):
            if not self.unknown_sizes and None in shape:
                raise ExtensionError(f"{where} has returned {answer!r}: sizes must be known")
            made.append(TensorType(dtype, self._completed(call, number, shape)))
        return made

    # -- the declaration, read -------------------------------------------------------------------

    def _mapping(self, given: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            raise self.error(f"{what} are a dict by name, found {type(given).__name__}")
        return given

    def _word(self, name: Any, what: str) -> str:
        if not isinstance(name, str) or not _WORD.fullmatch(name) or not name.isascii():
            raise self.error(f"{what} is named {name!r}; a name is letters, digits and _")
        return name

    def _attribute(self, name: str, given: Any) -> Attribute:
        if isinstance(given, type) and given in _ATTRIBUTES:
            return Attribute(_ATTRIBUTES[given], None)
        element = getattr(given, "__args__", (None,))[0]
        if element in _LISTS and getattr(given, "__origin__", None) is list:
            return Attribute(_LISTS[element], None)
        if isinstance(given, (list, tuple)) and given and type(given[0]) in _LISTS:
            return Attribute(_LISTS[type(given[0])], list(given))
        if type(given) in _ATTRIBUTES:
            return Attribute(_ATTRIBUTES[type(given)], given)
        raise self.error(
            f"attribute '{name}': a float, int, str or list of them as its default, or such a type "
            f"where it must be given, expected; found {given!r}"
        )

    def _input(self, name: str, given: Any) -> Input:
        dtypes, shape = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        like = ""
        if isinstance(shape, str) and any(i.name == shape for i in self.inputs):
            like, shape = shape, None
        elif isinstance(shape, str):  # ("float32", "float16"): two words
            dtypes, shape = given, None
        words = list(BY_NAME) if dtypes is None else dtypes
        words = [words] if isinstance(words, str) else words
        if not isinstance(words, (list, tuple)) or not words:
            raise self.error(
                f"input '{name}': a dtype, several, or None expected, found {dtypes!r}"
            )
        for word in words:
            self._require_dtype(word, f"input '{name}'")
        return Input(name, frozenset(words), self._input_shape(name, shape), like)

    def _input_shape(self, name: str, shape: Any) -> tuple[str | int, ...] | None:
        if shape is None:
            return None
        if not isinstance(shape, (list, tuple)):
            raise self.error(f"input '{name}': a shape is a list, or None for any; found {shape!r}")
        for size in shape:
            if isinstance(size, bool) or not isinstance(size, int):
                self._word(size, f"a dimension of input '{name}'")
        return tuple(shape)

    def _outputs(self, given: Any) -> tuple[Output, ...]:
        if self._types is not None:
            if not callable(self._types) or not isinstance(given, (list, tuple)):
                raise self.error("with types=, a function, outputs is a list of names")
            return tuple(Output(self._word(n, "an output"), None, None) for n in given)
        return tuple(
            self._output(self._word(name, "an output"), value)
            for name, value in self._mapping(given, "outputs").items()
        )

    def _output(self, name: str, given: Any) -> Output:
        inputs = [i.name for i in self.inputs]
        if not isinstance(given, tuple) or len(given) != 2:
            raise self.error(f"output '{name}': a pair (dtype, shape) expected, found {given!r}")
        dtype, shape = given
        if dtype not in inputs:
            self._require_dtype(dtype, f"output '{name}'", ", or the name of an input")
        if isinstance(shape, str):
            if shape not in inputs:
                raise self.error(
                    f"output '{name}': {shape!r} is no input that it could have the shape of; a "
                    "shape is a list of sizes, or an input's name"
                )
            return Output(name, dtype, shape)
        if not isinstance(shape, (list, tuple)):
            raise self.error(f"output '{name}': a shape is a list of sizes, found {shape!r}")
        if None in shape and not self.unknown_sizes:
            raise self.error(f"output '{name}': the sizes of a kernel's result must be known")
        where = f"output '{name}'"
        return Output(name, dtype, tuple(None if s is None else self.size(s, where) for s in shape))

    def size(self, text: Any, where: str) -> SizeText:
        """An expression of sizes over this operator's names."""
        integers = {name for name, a in self.attributes.items() if a.kind == 2}
        tensors = frozenset(i.name for i in self.inputs)
        names = frozenset(self.dimensions | integers)
        return SizeText(text, names, tensors, f"extension '{self.name}': {where}")

    def _require_dtype(self, word: Any, where: str, more: str = "") -> None:
        if word not in BY_NAME:
            raise self.error(
                f"{where}: {word!r} is no dtype; expected one of {', '.join(BY_NAME)}{more}"
            )

    def _require_apart(self) -> None:
        """Names of tensors, dimensions and attributes are used in the same expressions."""
        both = self.dimensions & self.attributes.keys()
        if both:
            raise self.error(f"'{min(both)}' names a dimension and an attribute")
