"""Products of one value with constant matrices become one product, and its results slices of it:

    x A + a,  x B + b,  x C   =   slices of   x [A B C] + [a b 0]

as for the queries, keys and values of attention. A GPU gets one launch instead of three, and one
that gives it enough to do. What reads the slices must read them where they lie: only results are
joined that go on through views, none that a pointwise operator would become the epilogue of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinfer.graph.ir import Array, Graph, Node, Value
from clinfer.passes.dead import remove_dead
from clinfer.passes.layout.projected import RULES as PROJECTED
from clinfer.passes.rewrite import Log, Outcome, Rewriter, Rule, run_rules
from clinfer_kernels.dims import product
from clinfer_kernels.onnx_pointwise import POINTWISE


@dataclass(frozen=True)
class Member:
    """A product x B with B [K, N] constant, and the sum behind it with a constant of N, if any.

    `transposed`: the constant is there as [N, K].
    """

    product: Node
    matrix: Array
    transposed: bool
    add: Node | None
    bias: Array | None

    @property
    def value(self) -> Value:
        """The result."""
        return (self.add or self.product).output

    @property
    def columns(self) -> int:
        """N."""
        return int(self.matrix.shape[0 if self.transposed else 1])


def join(rw: Rewriter, node: Node) -> Outcome:
    """Root: the first of the products."""
    first = _member(rw, node)
    if first is None:
        return None
    x = node.required(0)
    users = [user for user in x.users if user is not node and not rw.is_passed(user)]
    others = [_member(rw, user) for user in users if user.required(0) is x]
    key = (first.transposed, first.matrix.dtype)
    members = [first, *(m for m in others if m and (m.transposed, m.matrix.dtype) == key)]
    if len(members) == 1:
        return None
    made = _product(rw, x, members)
    start = 0
    for member in members:
        attrs = {"axes": [len(made.known_shape) - 1], "starts": [start], "steps": [1]}
        shape = (*made.known_shape[:-1], member.columns)
        rw.graph.replace(member.value, rw.emit("Slice", [made], made.dtype, shape, attrs=attrs))
        start += member.columns
    for member in members[1:]:
        rw.erase_unused(member.add or member.product)
    if first.add is not None:
        rw.erase_unused(first.add)
    return [None]


def _member(rw: Rewriter, node: Node) -> Member | None:
    """The product at `node`; None where it is another one, or its result is not only viewed."""
    if node.kind != "MatMul" or len(node.inputs) != 2 or node.required(0).const is not None:
        return None
    b = node.required(1)
    turned = b.producer
    transposed = turned is not None and turned.kind == "Transpose"
    matrix = turned.required(0).const if turned is not None and transposed else b.const
    if matrix is None or matrix.ndim != 2 or matrix.dtype.kind != "f":
        return None
    add, bias = _bias(rw, node)
    found = Member(node, matrix, transposed, add, bias)
    return found if _is_viewed(rw, found.value) else None


def _bias(rw: Rewriter, node: Node) -> tuple[Node | None, Array | None]:
    """The sum with a constant of N elements that alone reads a product, and that constant."""
    add = rw.graph.sole_user(node.output)
    if add is None or add.kind != "Add" or add.output.shape != node.output.shape:
        return None, None
    for value in add.inputs:
        if value is not None and value.const is not None and value is not node.output:
            columns = node.output.known_shape[-1]
            if value.const.size == columns == value.const.shape[-1]:
                return add, value.const.reshape(-1)
    return None, None


def _is_viewed(rw: Rewriter, value: Value) -> bool:
    """Whether readers find a slice of something wider as good as the value itself."""
    columns = value.known_shape[-1]
    while not rw.graph.is_output(value):
        if len(value.users) != 1:
            return bool(value.users)
        (reader,) = value.users
        if reader.kind == "Reshape" and value.known_shape[-1] == columns:
            if not _splits(reader, columns):
                return False
        elif reader.kind != "Transpose":
            return reader.kind not in POINTWISE and reader.kind != "Reshape"
        value = reader.output
    return False


def _splits(reshape: Node, columns: object) -> bool:
    """Whether a reshape keeps the columns to themselves."""
    shape = reshape.output.known_shape
    return any(product(shape[axis:]) == columns for axis in range(len(shape)))


def _product(rw: Rewriter, x: Value, members: list[Member]) -> Value:
    """All products side by side, with their biases, and 0 for those that have none."""
    transposed = members[0].transposed
    weights = np.concatenate([m.matrix for m in members], axis=0 if transposed else 1)
    b = rw.constant(weights)
    if transposed:
        attrs = {"perm": [1, 0]}
        b = rw.emit("Transpose", [b], b.dtype, weights.shape[::-1], attrs=attrs)
    shape = (*members[0].product.output.known_shape[:-1], sum(m.columns for m in members))
    made = rw.emit("MatMul", [x, b], x.dtype, shape)
    if all(m.bias is None for m in members):
        return made
    biases = [np.zeros(m.columns, m.matrix.dtype) if m.bias is None else m.bias for m in members]
    return rw.emit("Add", [made, rw.constant(np.concatenate(biases))], x.dtype, shape)


RULES = (Rule("siblings", ("MatMul",), join),)


def join_siblings(graph: Graph, log: Log) -> None:
    """Joins products of one value, and convolutions that are added."""
    run_rules(graph, (*RULES, *PROJECTED), log, "join")
    remove_dead(graph)
