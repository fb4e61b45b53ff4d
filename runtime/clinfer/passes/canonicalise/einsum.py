"""Einsum as sums, products and matrix products of two operands at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer.graph.ir import Node, Value
from clinfer.passes.canonicalise.linear import ATTRIBUTE_FORM
from clinfer.passes.rewrite import Outcome, Refusal, Rewriter, Rule
from clinfer_kernels.dims import Dim, product

_ELLIPSIS = "..."


@dataclass(frozen=True)
class _Operand:
    """A tensor with a name for each dimension."""

    value: Value
    names: tuple[str, ...]


def einsum(rw: Rewriter, node: Node) -> Outcome:
    """Einsum(x, y, z): x with y, the result with z; what nothing reads any more is summed away.

    Names that two operands share are the batch of a MatMul, or its inner dimension where neither
    the result nor a later operand has them. Without such a one the product is a Mul.
    """
    values = [v for v in node.inputs if v is not None]
    terms, wanted = _terms(str(node.attrs["equation"]).replace(" ", ""), values)
    if any(len(set(names)) != len(names) for names in (*terms, wanted)):
        return Refusal("an index is repeated in one operand")
    operands = [_without_units(rw, v, t) for v, t in zip(values, terms, strict=True)]
    result = operands[0]
    for index, operand in enumerate(operands):
        later = {name for other in operands[index + 1 :] for name in other.names}
        if index == 0:
            result = _summed(rw, result, later.union(wanted))
        else:
            own = _summed(rw, operand, later.union(wanted, result.names))
            result = _summed(rw, result, later.union(wanted, own.names))
            result = _product(rw, result, own, later.union(wanted))
    made = [name for name in wanted if name in result.names]
    moved = rw.transpose(result.value, [result.names.index(name) for name in made])
    return rw.reshape(moved, node.output.known_shape)


def _terms(equation: str, values: Sequence[Value]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Names of the dimensions of each operand and of the result; those of '...' are numbers.

    The numbers count from the last dimension that '...' stands for, as broadcasting does.
    """
    left, arrow, right = equation.partition("->")
    terms = []
    most = 0
    for term, value in zip(left.split(","), values, strict=True):
        count = len(value.known_shape) - len(term.replace(_ELLIPSIS, ""))
        most = max(most, count)
        terms.append(_names(term, count))
    if not arrow:
        flat = left.replace(",", "").replace(".", "")
        once = sorted(name for name in set(flat) if flat.count(name) == 1)
        right = (_ELLIPSIS if _ELLIPSIS in left else "") + "".join(once)
    return terms, _names(right, most)


def _names(term: str, count: int) -> tuple[str, ...]:
    before, dots, after = term.partition(_ELLIPSIS)
    numbers = [str(i) for i in reversed(range(count))] if dots else []
    return (*before, *numbers, *after)


def _without_units(rw: Rewriter, value: Value, names: tuple[str, ...]) -> _Operand:
    """The operand without dimensions of size 1: they repeat, or add nothing to a product."""
    pairs = list(zip(names, value.known_shape, strict=True))
    kept = [(name, size) for name, size in pairs if size != 1]
    shaped = rw.reshape(value, tuple(size for _, size in kept))
    return _Operand(shaped, tuple(name for name, _ in kept))


def _summed(rw: Rewriter, operand: _Operand, read: set[str]) -> _Operand:
    """The operand summed over the dimensions that are not `read`."""
    axes = [axis for axis, name in enumerate(operand.names) if name not in read]
    if not axes:
        return operand
    shape = operand.value.known_shape
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    total = rw.emit(
        "ReduceSum",
        [operand.value],
        operand.value.dtype,
        tuple(shape[axis] for axis in kept),
        attrs={"axes": axes, "keepdims": 0},
        version=ATTRIBUTE_FORM,
    )
    return _Operand(total, tuple(operand.names[axis] for axis in kept))


def _product(rw: Rewriter, left: _Operand, right: _Operand, read: set[str]) -> _Operand:
    """[batch, rows, inner] @ [batch, inner, columns], or [batch, rows, 1] * [batch, 1, columns]."""
    shared = [name for name in left.names if name in right.names]
    batch = [name for name in shared if name in read]
    inner = [name for name in shared if name not in read]
    rows = [name for name in left.names if name not in shared]
    columns = [name for name in right.names if name not in shared]
    dims = dict(zip(right.names, right.value.known_shape, strict=True))
    dims.update(zip(left.names, left.value.known_shape, strict=True))
    lead = tuple(dims[name] for name in batch)
    m, k, n = (product([dims[name] for name in part]) for part in (rows, inner, columns))
    a = _arranged(rw, left, [*batch, *rows, *inner], (*lead, m, k))
    b = _arranged(rw, right, [*batch, *inner, *columns], (*lead, k, n))
    kind = "MatMul" if inner else "Mul"
    result = rw.emit(kind, [a, b], left.value.dtype, (*lead, m, n))
    made = (*batch, *rows, *columns)
    return _Operand(rw.reshape(result, tuple(dims[name] for name in made)), made)


def _arranged(
    rw: Rewriter, operand: _Operand, order: Sequence[str], shape: tuple[Dim, ...]
) -> Value:
    perm = [operand.names.index(name) for name in order]
    return rw.reshape(rw.transpose(operand.value, perm), shape)


RULES = (Rule("einsum-to-products", ("Einsum",), einsum),)
