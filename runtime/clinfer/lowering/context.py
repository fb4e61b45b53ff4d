"""Lowering's state: which view of which storage each graph value has, and the steps so far.

Views cost nothing: transposes, slices, expansions and most reshapes only change the view. A kernel
family reads views with strides; where it cannot, `contiguous` makes a dense copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.lowering.content import Content
from clinfer_kernels.dims import Dim, product
from clinfer_kernels.expr import identity
from clinfer_kernels.families import why_not
from clinfer_kernels.spec import Kernel, Target, Tensor, dense, row_major
from clinfer_kernels.specs import MatmulSpec, PointwiseSpec

Chooser = Callable[[Any, Target], Kernel | None]


class Unlowerable(Exception):  # noqa: N818 - a decision, not an error a user sees
    """Raised by an operator's lowering: no kernel fits. The host step reports the reason."""


@dataclass(eq=False)
class Storage:
    """A buffer in the making; `kind` as in `plan.Buffer`. `size` counts elements.

    A packed constant has the element type and the size of what it is made of.
    """

    kind: str
    dtype: str
    size: Dim
    data: Content | None = None
    content: tuple[Dim, ...] = ()


@dataclass(frozen=True)
class View:
    """A strided window on a storage."""

    storage: Storage
    tensor: Tensor

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    def broadcast(self, shape: Sequence[Dim]) -> View:
        """This view read as `shape`, by NumPy's rules: size-1 and missing dimensions repeat."""
        missing = len(shape) - self.tensor.rank
        strides: list[Dim] = [0] * missing
        for own, step, wanted in zip(
            self.tensor.shape, self.tensor.strides, shape[missing:], strict=True
        ):
            strides.append(0 if own == 1 and wanted != 1 else step)
        return View(self.storage, self.tensor._replace(shape=tuple(shape), strides=tuple(strides)))

    def permute(self, perm: Sequence[int]) -> View:
        """Dimension i of the result is dimension perm[i] of this view."""
        shape = tuple(self.tensor.shape[p] for p in perm)
        strides = tuple(self.tensor.strides[p] for p in perm)
        return View(self.storage, self.tensor._replace(shape=shape, strides=strides))

    def reshape(self, shape: Sequence[Dim]) -> View | None:
        """The same elements as `shape` without moving them; None where that needs a copy."""
        strides = _reshape_strides(self.tensor, tuple(shape))
        if strides is None:
            return None
        return View(self.storage, self.tensor._replace(shape=tuple(shape), strides=strides))

    def array(self) -> Array:
        """A constant's elements as this view shows them."""
        assert self.storage.data is not None
        source = self.storage.data.source
        shape = tuple(int(d) for d in self.tensor.shape)  # type: ignore[arg-type]
        if self.tensor.is_contiguous and self.tensor.offset == 0 and shape == source.shape:
            return source
        flat = source.reshape(-1)
        steps = tuple(int(s) * flat.itemsize for s in self.tensor.strides)  # type: ignore[arg-type]
        start = flat[int(self.tensor.offset) :]  # type: ignore[arg-type]
        return np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False)


@dataclass
class PendingLaunch:
    """A kernel chosen, with the storages its 'in' and 'out' arguments mean."""

    kernel: Kernel
    ins: tuple[Storage, ...]
    outs: tuple[Storage, ...]
    label: str


@dataclass
class PendingHost:
    """A host step: `op` is made by `graph.reference`; operands are views or host storages."""

    node: Node
    inputs: tuple[View | Storage | None, ...]
    outputs: tuple[View | Storage | None, ...]
    reason: str


@dataclass
class Lowering:
    """One graph being lowered for one target; see the module's text."""

    graph: Graph
    target: Target
    choose: Chooser
    views: dict[Value, View] = field(default_factory=dict)
    host_values: dict[Value, Storage] = field(default_factory=dict)
    joins: dict[Value, Node] = field(default_factory=dict)
    _joined: dict[Value, View] = field(default_factory=dict)
    steps: list[PendingLaunch | PendingHost] = field(default_factory=list)
    _constants: dict[int, Storage] = field(default_factory=dict)

    # -- values to views ---------------------------------------------------------------------

    def view(self, value: Value) -> View:
        """The view of a value: computed, constant, or sizes written when shapes are bound."""
        if value in self.views:
            return self.views[value]
        if value in self.host_values:
            raise Unlowerable(f"'{value.name}' is a host object")
        if value.const is not None:
            return self._keep(value, self._constant(value.const))
        if value.symbolic is not None:
            return self._keep(value, _sizes(value))
        raise UnsupportedError(f"'{value.name}' is used before it is computed")

    def required(self, node: Node, index: int) -> View:
        """The view of an input that must be there."""
        return self.view(node.required(index))

    def contiguous(self, view: View) -> View:
        """A dense view of the same elements, copied by a kernel where needed."""
        if view.tensor.is_contiguous:
            return view
        if view.storage.kind == "const" and product(view.shape) == view.storage.size:
            return self._constant(view.array())
        made = self.temp(view.dtype, view.shape)
        self.copy(view, made, "copy")
        return made

    def constant_array(self, value: Value | None) -> Array | None:
        """A value's content where it is known when compiled."""
        return None if value is None else value.const

    def temp(self, dtype: str, shape: Sequence[Dim]) -> View:
        """A new dense temporary."""
        return View(Storage("temp", dtype, product(shape)), dense(dtype, shape))

    def output(self, value: Value, shape: Sequence[Dim] | None = None) -> View:
        """Where a kernel should write `value`: its part of a concatenation, else a new buffer.

        `shape` may state the same elements in another form (with kept reduced dimensions, say).
        """
        dtype = device_dtype(value)
        wanted = value.known_shape if shape is None else tuple(shape)
        if value in self.joins:
            node = self.joins[value]
            place = self.concat_parts(node)[node.inputs.index(value)].reshape(wanted)
            if place is not None:
                return place
        moved = self._transposed_later(value)
        if moved is not None:
            place = moved.reshape(wanted)
            if place is not None:
                return place
        kind = "output" if self.graph.is_output(value) else "temp"
        return View(Storage(kind, dtype, product(wanted)), dense(dtype, wanted))

    def _transposed_later(self, value: Value) -> View | None:
        """A place in the order that the only reader, a transpose, will want; None without one.

        The last axis must stay last, so that a kernel's rows remain contiguous.
        """
        user = self.graph.sole_user(value)
        if user is None or user.kind != "Transpose":
            return None
        perm = user.attrs["perm"]
        if perm[-1] != len(perm) - 1:
            return None
        inverse = [perm.index(axis) for axis in range(len(perm))]
        return self.output(user.output).permute(inverse)

    def concat_target(self, node: Node) -> View:
        """A concatenation's buffer; made when the first writer of a part asks for it."""
        if node.output not in self._joined:
            self._joined[node.output] = self.output(node.output)
        return self._joined[node.output]

    def concat_parts(self, node: Node) -> list[View]:
        """The windows of a concatenation's buffer that its inputs fill, in order."""
        target = self.concat_target(node)
        axis = node.attrs["axis"] % target.tensor.rank
        parts: list[View] = []
        start: Dim = 0
        for value in node.inputs:
            assert value is not None
            offset = target.tensor.offset + start * target.tensor.strides[axis]
            tensor = target.tensor._replace(shape=value.known_shape, offset=offset)
            parts.append(View(target.storage, tensor))
            start = start + value.known_shape[axis]
        return parts

    def bind(self, value: Value, view: View) -> None:
        """States that `value` is `view`, reshaped to the value's shape where it differs in form."""
        if view.shape != value.known_shape:
            shaped = view.reshape(value.known_shape)
            if shaped is None:
                raise UnsupportedError(
                    f"'{value.name}': a kernel gave the shape {_text(view.shape)} where the graph "
                    f"has {_text(value.known_shape)}"
                )
            view = shaped
        self.views[value] = view

    # -- steps ---------------------------------------------------------------------------------

    def launch(
        self,
        spec_type: Callable[..., Any],
        ins: Sequence[View],
        outs: Sequence[View],
        label: str,
        **params: Any,
    ) -> None:
        """Adds the best kernel for a spec; copies strided inputs to dense ones where it must.

        Raises `Unlowerable` where no kernel fits.
        """
        spec = _spec(spec_type, ins, outs, params)
        kernel = self.choose(spec, self.target)
        if kernel is None and any(not v.tensor.is_contiguous for v in ins):
            ins = [self.contiguous(v) if not _broadcasts(v) else v for v in ins]
            spec = _spec(spec_type, ins, outs, params)
            kernel = self.choose(spec, self.target)
        if kernel is None:
            reason = why_not(spec, self.target)
            raise Unlowerable(reason or f"no {spec_type.__name__} kernel takes these operands")
        storages = [v.storage for v in ins]
        for pack in kernel.packs:
            view = ins[pack.index]
            if spec_type is MatmulSpec:
                view = _matrix(view)
            storages[pack.index] = self._packed(view, pack.key, pack.apply)
        self.steps.append(
            PendingLaunch(kernel, tuple(storages), tuple(v.storage for v in outs), label)
        )

    def copy(self, source: View, target: View, label: str) -> None:
        """Copies elements between views of one shape."""
        moved = [_movable(source)], [_movable(target)]
        self.launch(PointwiseSpec, *moved, label, expr=identity(moved[0][0].dtype))

    def host(self, node: Node, reason: str) -> None:
        """Adds a host step for a node; its outputs become device tensors where they can."""
        inputs = tuple(None if v is None else self._host_operand(v) for v in node.inputs)
        outputs: list[View | Storage | None] = []
        for value in node.outputs:
            if value is None:
                outputs.append(None)
            elif value.shape is None or value.dtype not in DEVICE_DTYPES:
                self.host_values[value] = Storage("host", value.dtype or "object", 0)
                outputs.append(self.host_values[value])
            else:
                self.views[value] = self.temp(value.dtype, value.shape)
                outputs.append(self.views[value])
        self.steps.append(PendingHost(node, inputs, tuple(outputs), reason))

    # -- private -------------------------------------------------------------------------------

    def _keep(self, value: Value, view: View) -> View:
        self.views[value] = view
        return view

    def _host_operand(self, value: Value) -> View | Storage:
        if value in self.host_values:
            return self.host_values[value]
        if value.const is not None and value.dtype not in DEVICE_DTYPES:
            storage = Storage("host", value.dtype or "object", 0, data=Content(value.const))
            self.host_values[value] = storage
            return storage
        return self.view(value)

    def _constant(self, array: Array) -> View:
        known = self._constants.get(id(array))
        if known is None:
            known = Storage("const", array.dtype.name, array.size, data=Content(array))
            self._constants[id(array)] = known  # has `array`, so that its id stays its own
        return View(known, dense(known.dtype, array.shape))

    def _packed(self, view: View, key: str, apply: Callable[[Array], Array]) -> Storage:
        tensor = view.tensor
        known = self._packs.get((id(view.storage), tensor, key))
        if known is None:
            content = Content(view.array(), apply)
            known = Storage("const", view.dtype, view.storage.size, data=content)
            self._packs[(id(view.storage), tensor, key)] = known
        return known

    def __post_init__(self) -> None:
        self._packs: dict[tuple[int, Tensor, str], Storage] = {}


def device_dtype(value: Value) -> str:
    """The value's dtype, where a kernel can hold it; `Unlowerable` otherwise."""
    if value.dtype not in DEVICE_DTYPES:
        raise Unlowerable(
            f"'{value.name}' has dtype {value.dtype}, which kernels do not compute with"
        )
    if value.shape is None:
        raise Unlowerable(f"the rank of '{value.name}' is not known")
    return value.dtype


def _spec(
    spec_type: Callable[..., Any], ins: Sequence[View], outs: Sequence[View], params: dict[str, Any]
) -> Any:
    tensors_in = tuple(v.tensor for v in ins)
    tensors_out = tuple(v.tensor for v in outs)
    return spec_type(ins=tensors_in, outs=tensors_out, **params)


def _broadcasts(view: View) -> bool:
    pairs = zip(view.tensor.shape, view.tensor.strides, strict=True)
    return any(step == 0 and size != 1 for size, step in pairs)


def _movable(view: View) -> View:
    """The view as elements that every device can move: bits of float64 as int64."""
    if view.dtype != "float64":
        return view
    return View(view.storage, view.tensor._replace(dtype="int64"))


def _matrix(view: View) -> View:
    """The last two dimensions of a view whose leading ones only repeat it."""
    tensor = view.tensor
    return View(view.storage, tensor._replace(shape=tensor.shape[-2:], strides=tensor.strides[-2:]))


def _sizes(value: Value) -> View:
    assert value.symbolic is not None
    content = tuple(value.symbolic.reshape(-1).tolist())
    shape = value.symbolic.shape
    storage = Storage("sizes", value.dtype or "int64", len(content), content=content)
    return View(storage, dense(storage.dtype, shape))


def _text(shape: Sequence[Dim]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _reshape_strides(tensor: Tensor, shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides of `shape` over the same memory, None where there are none (NumPy's rule).

    Both shapes are cut into groups of equal products; within a group the old dimensions must be
    mergeable: stride[i] == size[i + 1] * stride[i + 1].
    """
    if tensor.is_contiguous:
        return row_major(shape)
    old = [(n, s) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n != 1]
    result: dict[int, Dim] = {}
    new = [i for i, n in enumerate(shape) if n != 1]
    i = j = 0
    while i < len(old) and j < len(new):
        start_i, start_j = i, j
        left, right = old[i][0], shape[new[j]]
        i += 1
        j += 1
        while left != right:
            if i < len(old) and (j >= len(new) or _grows(left, right)):
                left = left * old[i][0]
                i += 1
            elif j < len(new):
                right = right * shape[new[j]]
                j += 1
            else:
                return None
        for k in range(start_i, i - 1):
            if old[k][1] != old[k + 1][0] * old[k + 1][1]:
                return None
        step = old[i - 1][1]
        for k in reversed(range(start_j, j)):
            result[new[k]] = step
            step = step * shape[new[k]]
    if i < len(old) or j < len(new):
        return None
    return tuple(result.get(k, 0) for k in range(len(shape)))


def _grows(left: Dim, right: Dim) -> bool:
    """Whether the left product should take the next dimension to catch up with the right one."""
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    if isinstance(left, int) != isinstance(right, int):
        return isinstance(left, int)
    return len(str(left)) < len(str(right))
