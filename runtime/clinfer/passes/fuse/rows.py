"""Norms between products have no launch of their own on GPUs (docs/gpu.md, "Norms").

    x = f(A @ B, ...)    y = g(norm(x))    z = h(y @ C, ...)    w = f'(D @ E, y, ...)

becomes three products: the first sums its rows, the second normalises them as it reads them and
keeps their means and deviations, and the third, which adds y to something, computes it from x and
those. Only where all that read y can do without it: one product at least reads it as its left
operand, and the others do so after that one, in an expression. Runs last, when expressions are
final.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinfer.graph.ir import Graph, Node, Value
from clinfer.passes.dead import remove_dead
from clinfer.passes.fuse.anchors import epilogue_of
from clinfer.passes.fuse.program import Program, inline, program_of
from clinfer.passes.rewrite import Log
from clinfer_kernels.dims import product
from clinfer_kernels.expr import Builder
from clinfer_kernels.row_specs import CHUNK

_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_KIND = "clinfer.RowMatMul"
_PRODUCTS = ("MatMul", _KIND)
_FEW = 512  # rows: products of them are bound by what launches cost


@dataclass(frozen=True)
class _Readers:
    """Who reads a norm's result: as the left operand of a product, and in expressions."""

    products: list[Node]
    others: list[Node]


def join_norms(graph: Graph, log: Log) -> None:
    """Lets products normalise rows, wherever a norm stands between products."""
    _join_all(graph, log, None)


def join_few_norms(graph: Graph, log: Log) -> None:
    """The same where rows are few: with many a launch costs less than what slows products."""
    _join_all(graph, log, _FEW)


def _join_all(graph: Graph, log: Log, most: int | None) -> None:
    order = {id(node): number for number, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.kind == "clinfer.Norm":
            refusal = _many(node, most) or _join(graph, node, order)
            if refusal is None:
                log.fired["rows", "join-norm"] += 1
            else:
                log.refuse("rows", "join-norm", refusal, node)
    remove_dead(graph)


def _many(norm: Node, most: int | None) -> str | None:
    """Why not, where rows are more than `most`, or may be."""
    rows = product(norm.output.known_shape[:-1])
    if most is None or (isinstance(rows, int) and rows <= most):
        return None
    return f"it has {rows} rows, and the device has its form for at most {most}"


def _join(graph: Graph, norm: Node, order: dict[int, int]) -> str | None:
    """Takes a norm into the products around it; why not, where it cannot."""
    x, y = norm.required(0), norm.output
    if norm.attrs["axes"] != 1 or "prologue" in norm.attrs:
        return "it is not along the last axis of what a product gives"
    maker = x.producer
    if maker is None or maker.kind not in _PRODUCTS or not _is_by_constant(maker):
        return "no product with a constant makes its input"
    if y.dtype != x.dtype or x.dtype not in _FLOATS or x.dtype != maker.required(0).dtype:
        return f"it takes {x.dtype} and gives {y.dtype}"
    columns = x.known_shape[-1]
    if not isinstance(columns, int) or columns % CHUNK:
        return f"its rows have {columns} elements, no multiple of {CHUNK}"
    own = epilogue_of(norm)
    if any(v.known_shape and v.known_shape[:-1] != (1,) * (len(v.known_shape) - 1)
           for v in own.operands[1:]):  # fmt: skip
        return "its operands are not the same for all rows"
    readers = _readers(graph, y)
    if readers is None or not readers.products:
        return "what reads its result is no product with a constant, and no expression after one"
    first = min(readers.products, key=lambda node: order[id(node)])
    if any(order[id(node)] < order[id(first)] for node in readers.others):
        return "its result is read before the product that would normalise it"
    statistics = _statistics(graph, x) if readers.others else []
    later = [(node, _without(node, x, y, own, statistics)) for node in readers.others]
    if not all(program.is_small for _, program in later):
        return "an expression that reads its result would not fit into a kernel"
    sums = _summed(graph, maker)
    for node in readers.products:
        _normalise(graph, node, norm, own, x, sums)
    if statistics:
        first.outputs[1:3] = statistics
        for value in statistics:
            value.producer = first
    for node, program in later:
        _put(node, program)
    return None


def _is_by_constant(node: Node) -> bool:
    """Whether the right operand is one matrix, a constant or its transpose."""
    b = node.required(1)
    turned = b.producer
    if turned is not None and turned.kind == "Transpose":
        b = turned.required(0)
    return b.const is not None and b.const.ndim == 2


def _readers(graph: Graph, y: Value) -> _Readers | None:
    """Who reads `y`; None where someone needs it as it is."""
    if graph.is_output(y):
        return None
    products, others = [], []
    for node in dict.fromkeys(y.users.nodes()):
        own = node.attrs.get("own", len(node.inputs))
        places = [number for number, value in enumerate(node.inputs) if value is y]
        if node.kind == "MatMul" and places == [0] and _is_by_constant(node):
            products.append(node)
        elif (node.kind == "clinfer.Pointwise" and len(node.outputs) == 1) or (
            node.kind in _PRODUCTS and "epilogue" in node.attrs and min(places) >= own
        ):
            others.append(node)
        else:
            return None
    return _Readers(products, others)


def _statistics(graph: Graph, x: Value) -> list[Value]:
    """A row's mean and 1 / sqrt(variance + eps)."""
    shape = (*x.known_shape[:-1], 1)
    return [Value(graph.fresh(name), "float32", shape) for name in ("mean", "inverse")]


def _without(node: Node, x: Value, y: Value, own: Program, statistics: list[Value]) -> Program:
    """A reader's expression with the norm's result computed from `x`."""
    mean, inverse = statistics
    builder = Builder([str(x.dtype), "float32", "float32"])
    wide = 0 if x.dtype == "float32" else builder.op("cast", 0, dtype="float32")
    made = builder.op("mul", builder.op("sub", wide, 1), 2)
    if own.expr.inputs[0] != "float32":
        made = builder.op("cast", made, dtype=own.expr.inputs[0])
    normal = Program(builder.build(made), (x, mean, inverse))
    whole = inline(own, {id(own.operands[0]): normal})
    if node.kind == "clinfer.Pointwise":
        return inline(program_of(node), {id(y): whole})
    program = epilogue_of(node)
    return inline(program, {id(y): whole}, lead=program.operands[:1])


def _summed(graph: Graph, maker: Node) -> Value:
    """The sums of a product's rows, which it makes from now on."""
    _rename(maker)
    if maker.outputs[3] is None:
        shape = maker.output.known_shape
        assert isinstance(shape[-1], int)
        sums = Value(graph.fresh("sums"), "float32", (*shape[:-1], shape[-1] // CHUNK, 2))
        sums.producer = maker
        maker.outputs[3] = sums
    value = maker.outputs[3]
    assert value is not None
    return value


def _normalise(graph: Graph, node: Node, norm: Node, own: Program, x: Value, sums: Value) -> None:
    """Lets a product normalise its rows: its inputs are x, B, sums of x, columns, and operands."""
    rest = node.inputs[node.attrs.get("own", 2) :]
    columns = own.operands[1:]
    inputs = [x, node.required(1), sums, *columns, *rest]
    _rename(node)
    _read(node, inputs)
    facts = {"norm": own.expr, "rms": bool(norm.attrs["rms"]), "eps": float(norm.attrs["eps"])}
    node.attrs.update(facts, own=3 + len(columns))


def _rename(node: Node) -> None:
    if node.kind == "MatMul":
        node.op, node.domain = "RowMatMul", "clinfer"
        node.outputs = [node.outputs[0], None, None, None]
        node.attrs.setdefault("own", 2)


def _put(node: Node, program: Program) -> None:
    """A node with another expression."""
    if node.kind == "clinfer.Pointwise":
        _read(node, list(program.operands))
        node.attrs["expr"] = program.expr
        return
    own = node.attrs["own"]
    _read(node, [*node.inputs[:own], *program.operands[1:]])
    node.attrs["epilogue"] = program.expr


def _read(node: Node, inputs: list[Value | None]) -> None:
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    for value in inputs:
        if value is not None:
            value.users.append(node)
    node.inputs = inputs
