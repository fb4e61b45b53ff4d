"""Lowering's state: which view of which storage each graph value has, and the steps so far.

A kernel family reads views with strides; where it cannot, `contiguous` makes a dense copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinfer.dtypes import DEVICE_DTYPES
from clinfer.errors import UnsupportedError
from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.lowering.bounds import Proofs
from clinfer.lowering.content import Content
from clinfer.lowering.pending import (
    Pending,
    PendingHost,
    PendingLaunch,
)
from clinfer.lowering.plan import Check
from clinfer.lowering.storage import (
    Storage,
    Unlowerable,
    View,
    as_matrix,
    broadcasts,
    device_dtype,
    movable,
    shape_text,
    sizes_view,
)
from clinfer_kernels.dims import Dim, product
from clinfer_kernels.expr import identity
from clinfer_kernels.families import why_not
from clinfer_kernels.row_specs import RowMatmulSpec
from clinfer_kernels.spec import MOST_ARGUMENT_BYTES, Kernel, Target, Tensor, dense
from clinfer_kernels.specs import EncodedMatmulSpec, MatmulSpec, PointwiseSpec

Chooser = Callable[[Any, Target], Kernel | None]


@dataclass
class Lowering:
    """One graph being lowered for one target; see the module's text.

    `places` holds where values must be written, of a body inside the graph that is lowered.
    """

    graph: Graph
    target: Target
    choose: Chooser
    views: dict[Value, View] = field(default_factory=dict)
    host_values: dict[Value, Storage] = field(default_factory=dict)
    joins: dict[Value, Node] = field(default_factory=dict)
    _joined: dict[Value, View] = field(default_factory=dict)
    steps: list[Pending] = field(default_factory=list)
    proofs: Proofs = field(default_factory=Proofs)
    places: dict[Value, View] = field(default_factory=dict)
    is_inside: bool = False
    _constants: dict[int, Storage] = field(default_factory=dict)
    _packs: dict[tuple[int, Tensor, str], Storage] = field(default_factory=dict)

    def inside(self, graph: Graph, proofs: Proofs) -> Lowering:
        """The lowering of a body: its steps and constants are among this graph's."""
        return Lowering(
            graph,
            self.target,
            self.choose,
            steps=self.steps,
            proofs=proofs,
            is_inside=True,
            _constants=self._constants,
            _packs=self._packs,
        )

    def stands_for(self, value: Value, outer: Lowering, captured: Value) -> None:
        """States that a body's input is a value of the graph outside."""
        if captured in outer.host_values:
            self.host_values[value] = outer.host_values[captured]
        else:
            self.views[value] = outer.view(captured).named_as(captured.shape, value.shape)

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
            return self._keep(value, sizes_view(value))
        raise UnsupportedError(f"'{value.name}' is used before it is computed")

    def required(self, node: Node, index: int) -> View:
        """The view of an input that must be there."""
        return self.view(node.required(index))

    def contiguous(self, view: View) -> View:
        """A dense view of the same elements, copied by a kernel where needed."""
        if view.tensor.is_contiguous:
            return view
        if view.is_fixed_constant and product(view.shape) == view.storage.size:
            return self._constant(view.array())
        made = self.temp(view.dtype, view.shape)
        self.copy(view, made, "copy")
        return made

    def whole(self, view: View) -> View:
        """A dense view that begins where its buffer does, and has all of it; copied where needed.

        What kernels take that know no offsets and no strides.
        """
        tensor = view.tensor
        if tensor.is_contiguous and tensor.offset == 0 and tensor.size == view.storage.size:
            return view
        if view.is_fixed_constant:
            return self._constant(np.ascontiguousarray(view.array()))
        made = self.temp(view.dtype, view.shape)
        self.copy(view, made, "copy")
        return made

    def own_buffer(self, value: Value) -> View:
        """A dense view of a new buffer for a value, wherever its readers would like it to lie."""
        return self._new(device_dtype(value), value.known_shape, value)

    def constant_array(self, value: Value | None) -> Array | None:
        """A value's content where it is known when compiled."""
        return None if value is None else value.const

    def temp(self, dtype: str, shape: Sequence[Dim]) -> View:
        """A new dense temporary."""
        return View(Storage("temp", dtype, product(shape)), dense(dtype, shape))

    def output(
        self, value: Value, shape: Sequence[Dim] | None = None, like: View | None = None
    ) -> View:
        """Where a kernel should write `value`: its part of a concatenation, else a new buffer.

        `shape` may state the same elements in another form (with kept reduced dimensions, say).
        `like`: an operand of that shape, with whose innermost dimension the result's may go.
        """
        dtype = device_dtype(value)
        wanted = value.known_shape if shape is None else tuple(shape)
        if value in self.places:
            place = self.places[value].reshape(wanted)
            if place is not None:
                return place
        if value in self.joins:
            node = self.joins[value]
            place = self._part(node, value).reshape(wanted)
            if place is not None:
                return place
        moved = self._transposed_later(value, like)
        if moved is not None:
            place = moved.reshape(wanted)
            if place is not None:
                return place
        return self._new(dtype, wanted, value)

    def _new(self, dtype: str, shape: Sequence[Dim], value: Value) -> View:
        """A dense buffer for a value: the caller's where it is a result of the model, no body's."""
        made = self.temp(dtype, shape)
        if self.graph.is_output(value) and not self.is_inside:
            made.storage.kind = "output"
        return made

    def _transposed_later(self, value: Value, like: View | None) -> View | None:
        """A place in the order that the only reader, a transpose, will want; None without one.

        The last axis must stay last, so that a kernel's rows remain contiguous; or on a CPU, whose
        kernels may run across rows, go where it is in `like`.
        """
        user = self.graph.sole_user(value)
        if user is None or user.kind != "Transpose":
            return None
        perm = user.attrs["perm"]
        if perm[-1] != len(perm) - 1:
            turned = like is not None and like.tensor.strides[perm[-1]] == 1
            if not turned or self.target.cls != "cpu":
                return None
        inverse = [perm.index(axis) for axis in range(len(perm))]
        return self.output(user.output).permute(inverse)

    def concat_target(self, node: Node) -> View:
        """A concatenation's buffer; made when the first writer of a part asks for it."""
        if node.output not in self._joined:
            self._joined[node.output] = self.output(node.output)
        return self._joined[node.output]

    def _part(self, node: Node, value: Value) -> View:
        """The window that an input, which the concatenation reads once, fills."""
        if node not in self._parts:
            pairs = zip(node.inputs, self.concat_parts(node), strict=True)
            self._parts[node] = {v: part for v, part in pairs if v is not None}
        return self._parts[node][value]

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
                    f"'{value.name}': a kernel gave the shape {shape_text(view.shape)} where the "
                    f"graph has {shape_text(value.known_shape)}"
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
        checks: Sequence[Check] = (),
        **params: Any,
    ) -> None:
        """Adds the best kernel for a spec; copies strided inputs to dense ones where it must.

        `checks` are those that the kernel makes, in the order of its slots. Raises `Unlowerable`
        where no kernel fits.
        """
        spec = _spec(spec_type, ins, outs, params)
        kernel = self.choose(spec, self.target)
        if kernel is None and any(not v.tensor.is_contiguous for v in ins):
            ins = [self.contiguous(v) if not broadcasts(v) else v for v in ins]
            spec = _spec(spec_type, ins, outs, params)
            kernel = self.choose(spec, self.target)
        if kernel is None:
            reason = why_not(spec, self.target)
            raise Unlowerable(reason or f"no {spec_type.__name__} kernel takes these operands")
        _require_few_arguments(kernel)
        self.proofs.launch(spec, ins, outs, label)
        storages = [v.storage for v in ins]
        for pack in kernel.packs:
            view = ins[pack.index]
            if spec_type in (EncodedMatmulSpec, MatmulSpec, RowMatmulSpec):
                view = as_matrix(view)
            storages[pack.index] = self._packed(view, pack.key, pack.apply)
        self.steps.append(
            PendingLaunch(
                kernel, tuple(storages), tuple(v.storage for v in outs), label, tuple(checks)
            )
        )

    def copy(self, source: View, target: View, label: str) -> None:
        """Copies elements between views of one shape."""
        moved = [movable(source)], [movable(target)]
        self.launch(PointwiseSpec, *moved, label, expr=identity(moved[0][0].dtype))

    def host(self, node: Node, reason: str) -> None:
        """Adds a host step for a node; its outputs become device tensors where they can."""
        inputs = tuple(None if v is None else self.operand(v) for v in node.inputs)
        for operand in inputs:
            if isinstance(operand, View):
                size = operand.storage.size
                self.proofs.view(operand.tensor, size, node.describe(), is_counted=False)
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

    def operand(self, value: Value) -> View | Storage:
        """Where a host step finds a value: a view, or the storage of an object."""
        if value in self.host_values:
            return self.host_values[value]
        if value.const is not None and value.dtype not in DEVICE_DTYPES:
            storage = Storage("host", value.dtype or "object", 0, data=Content(value.const))
            self.host_values[value] = storage
            return storage
        return self.view(value)

    # -- private -------------------------------------------------------------------------------

    def _keep(self, value: Value, view: View) -> View:
        self.views[value] = view
        return view

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
        self._parts: dict[Node, dict[Value, View]] = {}


def _require_few_arguments(kernel: Kernel) -> None:
    """Drivers refuse, or do not check, what has more: tensors of many dimensions may."""
    nbytes = max((launch.argument_bytes for launch in kernel.launches), default=0)
    if nbytes > MOST_ARGUMENT_BYTES:
        raise Unlowerable(
            f"its kernel takes {nbytes} bytes of arguments, where devices may allow no more than "
            f"{MOST_ARGUMENT_BYTES}: its tensors have too many dimensions"
        )


def _spec(
    spec_type: Callable[..., Any], ins: Sequence[View], outs: Sequence[View], params: dict[str, Any]
) -> Any:
    tensors_in = tuple(v.tensor for v in ins)
    tensors_out = tuple(v.tensor for v in outs)
    return spec_type(ins=tensors_in, outs=tensors_out, **params)
