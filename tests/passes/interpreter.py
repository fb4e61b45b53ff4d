"""Evaluates graphs with NumPy: onnx's reference for ONNX operators, plain NumPy for our own.

It reads a graph at any stage between the reader and lowering, so a pass is right when the results
before and after it agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.graph.ir import Graph, Node, Value
from clinfer.graph.numpy_quantise import dequantize_linear
from clinfer_kernels.dims import Expr as DimExpr
from clinfer_kernels.dims import Sym, evaluate
from clinfer_kernels.narrow import TABLES
from passes.expressions import erf, looked_up, run_expr
from passes.references import onnx_op, reference

Array = np.ndarray[Any, Any]


class Interpreter:
    """One run of a graph; `symbols` are the dynamic sizes seen so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.symbols: dict[str, int] = {}
        self.values: dict[int, Any] = {}

    def run(self, feeds: Mapping[str, Array]) -> list[Any]:
        """The graph's outputs in order."""
        for value in self.graph.inputs:
            self._store(value, np.asarray(feeds[value.name]))
        for node in self.graph.nodes:
            results = self._results(node)
            for value, result in zip(node.outputs, results, strict=False):
                if value is not None:
                    self._store(value, result)
        return [self._load(v) for v in self.graph.outputs]

    def _store(self, value: Value, content: Any) -> None:
        self.values[id(value)] = content
        if not isinstance(content, np.ndarray) or value.shape is None:
            return
        assert len(value.shape) == content.ndim, f"{value}: rank {content.ndim} computed"
        for dim, size in zip(value.shape, content.shape, strict=True):
            self._bind(dim, size)
        shape = self.shape(value)
        assert shape == content.shape, f"{value}: shape {content.shape} computed, {shape} inferred"
        if value.dtype is not None and value.dtype != "string":
            assert content.dtype == to_numpy(value.dtype), f"{value}: {content.dtype} computed"

    def _bind(self, dim: Any, size: int) -> None:
        if isinstance(dim, DimExpr) and len(dim.terms) == 1:
            monomial, factor = dim.terms[0]
            if factor == 1 and len(monomial) == 1 and monomial[0][1] == 1:
                atom = monomial[0][0]
                if isinstance(atom, Sym):
                    self.symbols.setdefault(atom.name, size)

    def _load(self, value: Value | None) -> Any:
        if value is None:
            return None
        if id(value) in self.values:
            return self.values[id(value)]
        if value.const is not None:
            return value.const
        assert value.symbolic is not None, f"{value} is not computed"
        content = [evaluate(d, self.symbols) for d in value.symbolic.reshape(-1).tolist()]
        return np.array(content, dtype=value.dtype).reshape(value.symbolic.shape)

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value in this run."""
        return tuple(evaluate(d, self.symbols) for d in value.known_shape)

    def _results(self, node: Node) -> Sequence[Any]:
        inputs = [self._load(v) for v in node.inputs]
        rule = _RULES.get(node.kind)
        if rule is None or not _is_canonical(node):
            return reference(node, inputs)
        result = rule(self, node, inputs)
        return result if isinstance(result, list) else [result]


# -- operators -----------------------------------------------------------------------------------


def _prologue(node: Node, inputs: Sequence[Any], own: int) -> list[Any]:
    """The operator's own inputs, with its prologue applied."""
    count = node.attrs.get("own", own)
    before = node.attrs.get("prologue")
    if before is None:
        return list(inputs[:count])
    weights = inputs[1:own]  # of a convolution, between the operands
    operands = np.broadcast_arrays(inputs[0], *inputs[own:count])
    return [run_expr(before, operands), *weights]


def _epilogue(run: Interpreter, node: Node, inputs: Sequence[Any], own: int, result: Any) -> Any:
    after = node.attrs.get("epilogue")
    if after is None:
        return result
    shape = run.shape(node.output)
    assert result.shape == shape, f"{node}: the operator gives {result.shape}"
    operands = [result, *inputs[node.attrs.get("own", own) :]]
    return run_expr(after, [np.broadcast_to(v, shape) for v in operands])


def _anchor(own: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps a rule of the operator's own inputs with its prologue and epilogue."""

    def wrap(rule: Callable[..., Any]) -> Callable[..., Any]:
        def run_rule(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
            result = rule(run, node, _prologue(node, inputs, own))
            if isinstance(result, list):
                return result
            return _epilogue(run, node, inputs, own, result)

        return run_rule

    return wrap


def _slice(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    x = inputs[0]
    shape = run.shape(node.output)
    index: list[Any] = [slice(None)] * x.ndim
    columns = (node.attrs["axes"], node.attrs["starts"], node.attrs["steps"])
    for axis, start, step in zip(*columns, strict=True):
        first = evaluate(start, run.symbols)
        index[axis] = first + step * np.arange(shape[axis])
    for axis, places in enumerate(index):
        x = x if isinstance(places, slice) else np.take(x, places, axis=axis)
    return x


_REDUCERS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSumSquare": lambda x, **k: np.sum(x * x, **k),
    "ReduceL1": lambda x, **k: np.sum(np.abs(x), **k),
    "ReduceL2": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "ReduceLogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}


@_anchor(1)
def _reduce(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    (x,) = inputs
    keep = bool(node.attrs["keepdims"])
    made = _REDUCERS[node.op](x, axis=tuple(node.attrs["axes"]), keepdims=keep)
    return np.asarray(made).astype(x.dtype)


@_anchor(2)
def _matmul(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    if inputs[0].dtype.kind in "iu":
        return np.matmul(*_summed(inputs))
    return np.matmul(*inputs).astype(inputs[0].dtype)


def _summed(inputs: Sequence[Array]) -> list[Array]:
    """Operands in what they are summed in: those of 8 bits in int32."""
    return [v.astype(np.int32) if v.dtype.itemsize == 1 else v for v in inputs]


def _row_matmul(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    """The product, and of A's rows mean and inverse deviation, and of the result's rows sums."""
    a, b, *beside = inputs[: node.attrs["own"]]
    made: list[Any] = [None, None, None, None]
    norm = node.attrs.get("norm")
    if norm is not None:
        wide = a.astype(np.float64)
        mean = 0 * wide[..., :1] if node.attrs["rms"] else wide.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + node.attrs["eps"])
        normal = ((wide - mean) * inverse).astype(a.dtype)
        columns = [np.broadcast_to(v, a.shape) for v in beside[1:]]
        a = run_expr(norm, [normal, *columns])
        made[1:3] = mean.astype(np.float32), inverse.astype(np.float32)
    product = np.matmul(a, b).astype(a.dtype)
    made[0] = _epilogue(run, node, inputs, 2, product)
    parts = made[0].astype(np.float64).reshape(*made[0].shape[:-1], -1, 64)
    away = ((parts - parts.mean(-1, keepdims=True)) ** 2).sum(-1)
    made[3] = np.stack([parts.mean(-1), away], -1).astype(np.float32)
    return made


@_anchor(4)
def _encoded_matmul(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    a, codes, scales, zeros = (*inputs, None)[:4]
    attrs = {"axis": 0, "block_size": node.attrs["block"]}
    if node.attrs["form"] in TABLES:
        attrs["format"] = node.attrs["form"]
    elif node.attrs["form"] != "integer":
        codes = codes.view(to_numpy(node.attrs["form"]))
    points = np.float32(node.attrs["zero"]).reshape(()) if zeros is None else zeros
    (weights,) = dequantize_linear(attrs, [codes, scales.astype(np.float32), points])
    return np.matmul(a, weights)


@_anchor(1)
def _softmax(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    (x,) = inputs
    axes = tuple(range(x.ndim - node.attrs["axes"], x.ndim))
    away = x - np.max(x, axis=axes, keepdims=True)
    total = np.sum(np.exp(away), axis=axes, keepdims=True)
    made = away - np.log(total) if node.attrs["log"] else np.exp(away) / total
    return made.astype(x.dtype)


@_anchor(1)
def _norm(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    (x,) = inputs
    axes = tuple(range(x.ndim - node.attrs["axes"], x.ndim))
    wide = x.astype(np.float64)
    if not node.attrs["rms"]:
        wide = wide - wide.mean(axis=axes, keepdims=True)
    spread = np.sqrt((wide * wide).mean(axis=axes, keepdims=True) + node.attrs["eps"])
    return (wide / spread).astype(x.dtype)


@_anchor(2)
def _conv(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    x, weights = inputs
    attrs = {name: node.attrs[name] for name in ("strides", "pads", "dilations", "group")}
    attrs["kernel_shape"] = node.attrs["kernel"]
    if "zero" in node.attrs:
        x, weights = _summed(inputs)
        x = x - node.attrs["zero"]
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    if node.op == "ConvTranspose":
        attrs["output_padding"] = _output_padding(run, node, first)
    made = onnx_op(node.op, [first, weights], 11, **attrs)
    return np.ascontiguousarray(np.moveaxis(made, 1, -1))


@_anchor(3)
def _projected_conv(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    """The convolution and the projection, each by itself."""
    x, weights, side = inputs
    taps = (*node.attrs["kernel"], x.shape[-1])
    flat = weights.reshape(len(weights), -1)
    mine = np.moveaxis(flat[:, : np.prod(taps)].reshape(-1, *taps), -1, 1)
    attrs = {name: node.attrs[name] for name in ("strides", "pads", "dilations", "group")}
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    made = onnx_op("Conv", [first, mine], 11, **attrs, kernel_shape=node.attrs["kernel"])
    return np.moveaxis(made, 1, -1) + side @ flat[:, np.prod(taps) :].T


def _output_padding(run: Interpreter, node: Node, x: Array) -> list[int]:
    """What the output's size has more than the formula gives."""
    shape = run.shape(node.output)[1:-1]
    extra: list[int] = []
    for axis, size in enumerate(shape):
        extent = (node.attrs["kernel"][axis] - 1) * node.attrs["dilations"][axis] + 1
        full = node.attrs["strides"][axis] * (x.shape[2 + axis] - 1) + extent
        pads = node.attrs["pads"]
        extra.append(size - full + pads[axis] + pads[len(shape) + axis])
    return extra


def _pool(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    """Stacks what each kernel position reads, then reduces over the positions."""
    x, attrs = inputs[0], node.attrs
    shape = run.shape(next(v for v in node.outputs if v is not None))[1:-1]
    rank = len(shape)
    begins, ends = attrs["pads"][:rank], attrs["pads"][rank:]
    width = [(0, 0), *((b, e + 64) for b, e in zip(begins, ends, strict=True)), (0, 0)]
    inside = np.pad(np.ones(x.shape, bool), width)
    counted = np.zeros_like(inside)
    reach = [slice(n + b + e) for n, b, e in zip(x.shape[1:-1], begins, ends, strict=True)]
    counted[(slice(None), *reach)] = 1
    padded = np.pad(x, width)
    order = "F" if attrs["storage_order"] else "C"
    flat = np.arange(math.prod(x.shape[1:-1])).reshape(x.shape[1:-1], order=order)
    planes = np.arange(x.shape[0] * x.shape[-1]).reshape(x.shape[0], x.shape[-1])
    base = planes.reshape(x.shape[0], *([1] * rank), x.shape[-1]) * flat.size
    places = np.pad(base + flat[None, ..., None], width)
    windows = []
    for position in np.ndindex(*attrs["kernel"]):
        index: list[Any] = [slice(None)]
        for axis, size in enumerate(shape):
            first = position[axis] * attrs["dilations"][axis]
            step = attrs["strides"][axis]
            index.append(slice(first, first + (size - 1) * step + 1, step))
        windows.append([a[tuple(index)] for a in (padded, inside, counted, places)])
    values, real, within, where = (np.stack(column) for column in zip(*windows, strict=True))
    if attrs["kind"] == "max":
        low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        masked = np.where(real, values, np.array(low, x.dtype))
        best = masked.argmax(axis=0)[None]
        top = np.take_along_axis(masked, best, 0)[0]
        indices = np.take_along_axis(where, best, 0)[0].astype(np.int64)
        if len(node.outputs) > 1:
            return [top, indices]
    elif attrs["kind"] == "average":
        counts = (real, within, np.ones_like(within))
        count = counts[attrs["count_include_pad"]].sum(axis=0)
        top = (np.where(real, values, 0).sum(axis=0) / count).astype(x.dtype)
    else:
        p = attrs["p"]
        total = (np.abs(np.where(real, values, 0)) ** p).sum(axis=0)
        top = (total ** (1.0 / p)).astype(x.dtype)
    return _epilogue(run, node, inputs, 1, top)


@_anchor(1)
def _resize(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    x = inputs[0]
    shape = run.shape(node.output)
    names = (
        "mode",
        "coordinate_transformation_mode",
        "nearest_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
    )
    attrs = {name: node.attrs[name] for name in names}
    scales = np.array([m / n for n, m in zip(x.shape, shape, strict=True)], np.float32)
    for axis, scale in zip(node.attrs["axes"], node.attrs["scales"], strict=True):
        scales[axis] = scale
    if node.attrs["axes"]:
        return onnx_op("Resize", [x, None, scales], 19, **attrs)
    return onnx_op("Resize", [x, None, None, np.array(shape, np.int64)], 19, **attrs)


@_anchor(2)
def _grid_sample(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    x, grid = inputs
    names = ("mode", "padding_mode", "align_corners")
    attrs = {name: node.attrs[name] for name in names}
    made = onnx_op("GridSample", [np.moveaxis(x, -1, 1), grid], 20, **attrs)
    return np.moveaxis(made, 1, -1)


def _attention(run: Interpreter, node: Node, inputs: Sequence[Any]) -> Any:
    q, k, v = inputs[:3]
    repeat = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
    scores = (q @ k.swapaxes(-1, -2)).astype(np.float64) * node.attrs["scale"]
    if node.attrs["causal"]:
        rows, cols = scores.shape[-2:]
        seen = np.arange(cols)[None, :] <= np.arange(rows)[:, None] + (cols - rows)
        scores = np.where(seen, scores, -np.inf)
    if len(inputs) > 3 and inputs[3] is not None:
        mask = inputs[3]
        scores = scores + (np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(top), 0.0, top))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / np.where(total == 0, np.nan, total)
    zeroed = {"nan": np.isnan(weights), "empty": total == 0}.get(
        node.attrs.get("zeroed", ""), False
    )
    weights = np.where(zeroed, 0.0, weights)
    return (weights @ v).astype(q.dtype)


def _gelu(x: Array, form: str) -> Array:
    wide = x.astype(np.float64)
    inner = np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))
    return (wide / 2 * (1 + (inner if form == "tanh" else erf()(wide / np.sqrt(2))))).astype(
        x.dtype
    )


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda run, node, inputs: inputs[0],
    "Reshape": lambda run, node, inputs: inputs[0].reshape(run.shape(node.output)),
    "Expand": lambda run, node, inputs: np.broadcast_to(inputs[0], run.shape(node.output)).copy(),
    "Transpose": lambda run, node, inputs: inputs[0].transpose(node.attrs.get("perm")),
    "Slice": _slice,
    "MatMul": _matmul,
    "clinfer.EncodedMatMul": _encoded_matmul,
    "clinfer.RowMatMul": _row_matmul,
    **dict.fromkeys(_REDUCERS, _reduce),
    "Resize": _resize,
    "Gelu": lambda run, node, inputs: _gelu(inputs[0], node.attrs["approximate"]),
    "clinfer.Lookup": lambda run, node, inputs: looked_up(*inputs),
    "clinfer.Pointwise": lambda run, node, inputs: run_expr(
        node.attrs["expr"], [np.broadcast_to(v, run.shape(node.output)) for v in inputs]
    ),
    "clinfer.Softmax": _softmax,
    "clinfer.Norm": _norm,
    "clinfer.Conv": _conv,
    "clinfer.ConvTranspose": _conv,
    "clinfer.ProjectedConv": _projected_conv,
    "clinfer.Pool": _pool,
    "clinfer.GridSample": _grid_sample,
    "clinfer.Attention": _attention,
}


def _is_canonical(node: Node) -> bool:
    """Whether the node has our form; else it has ONNX's, with axes and sizes as inputs."""
    if "own" in node.attrs:
        return True
    if node.op in ("Reshape", "Expand", "Resize"):
        return len(node.inputs) == 1
    if node.op == "Slice":
        return "steps" in node.attrs
    return node.op not in _REDUCERS or {"axes", "keepdims"} <= set(node.attrs)


def run_graph(graph: Graph, feeds: Mapping[str, Array]) -> list[Any]:
    """The outputs of `graph` for `feeds` by input name."""
    return Interpreter(graph).run(feeds)
