"""Questions rules ask about values: what is known of their content, how their shapes relate."""

from __future__ import annotations

from collections.abc import Sequence

from clinfer.graph.bounds import at_least, at_most, from_front
from clinfer.graph.ir import Node, Shape, Value
from clinfer_kernels.broadcasts import join
from clinfer_kernels.dims import Dim, Opaque, Sym, substitute, symbols


def prologue_inputs(node: Node) -> list[Value]:
    """The operands of a node's prologue; those of a convolution go around the weights."""
    own = node.inputs[: node.attrs["own"]] if "prologue" in node.attrs else node.inputs[:1]
    places = (0, *range(2, len(own))) if node.kind == "clinfer.Conv" else range(len(own))
    return [value for value in (own[place] for place in places) if value is not None]


def sizes(value: Value | None) -> list[Dim] | None:
    """The content of an integer tensor, flattened, where it is constant or computed from sizes."""
    if value is None:
        return None
    if value.const is not None:
        return [int(v) for v in value.const.reshape(-1).tolist()]
    if value.symbolic is not None:
        return list(value.symbolic.reshape(-1).tolist())
    return None


def integers(value: Value | None) -> list[int] | None:
    """The content of a constant integer tensor, flattened."""
    known = sizes(value)
    if known is None:
        return None
    numbers = [d for d in known if isinstance(d, int)]
    return numbers if len(numbers) == len(known) else None


def scalar(value: Value | None) -> float | int | bool | None:
    """The one element of a constant."""
    if value is None or value.const is None or value.const.size != 1:
        return None
    element: float | int | bool = value.const.reshape(-1)[0].item()
    return element


def normal_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    return axis + rank if axis < 0 else axis


def inverse(perm: Sequence[int]) -> list[int]:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for position, source in enumerate(perm):
        result[source] = position
    return result


def compose(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The permutation of transposing by `first`, then by `second`."""
    return [first[p] for p in second]


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """NumPy's broadcast of shapes; None where they do not fit each other."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, start=rank - len(shape)):
            size = join(result[axis], dim)
            if size is None:
                return None
            result[axis] = size
    return tuple(result)


def fits(shape: Shape, target: Shape) -> bool:
    """Whether `shape` broadcasts to `target` without enlarging it.

    A symbol fits a number: shape inference has required it to be that or 1.
    """
    if len(shape) > len(target):
        return False
    tail = target[len(target) - len(shape) :]
    return all(join(own, wanted) == wanted for own, wanted in zip(shape, tail, strict=True))


def is_at_least(dim: Dim, bound: int, positive: frozenset[str]) -> bool:
    """Whether `dim` >= `bound` for sure; symbols in `positive` are at least 1, others 0.

    A polynomial in s >= 1 is one in t = s - 1 >= 0, whose least value is its constant term when
    no other coefficient is negative; symbols that may be 0 are such t themselves. Of an opaque
    atom only its sign is known.
    """
    if isinstance(dim, int):
        return dim >= bound
    least = 0
    for monomial, factor in dim.terms:
        if monomial and factor < 0:
            return False
        opaque = [atom for atom, _ in monomial if isinstance(atom, Opaque)]
        if not all(_is_natural(atom, positive) for atom in opaque):
            return False
        names = [atom.name for atom, _ in monomial if isinstance(atom, Sym)]
        if not opaque and positive.issuperset(names):
            least += factor
    return least >= bound


def _is_natural(atom: Opaque, positive: frozenset[str]) -> bool:
    signs = [is_at_least(side, 0, positive) for side in (atom.left, atom.right)]
    return any(signs) if atom.op == "max" else all(signs)


def positive_symbols(shape: Shape) -> frozenset[str]:
    """The symbols that are at least 1 wherever a tensor of that shape has elements at all."""
    found = set()
    for dim in shape:
        for name in symbols(dim):
            rest = substitute(dim, {name: 0})
            if isinstance(rest, int) and rest <= 0:
                found.add(name)
    return frozenset(found)


def first_index(start: Dim, axis: int, shape: Shape, step: int = 1) -> Dim:
    """Where a slice along `axis` starts, counted from the front.

    A start past the end makes an empty slice, so its value does not matter and is not clamped
    when the size is a symbol.
    """
    size = shape[axis]
    if isinstance(start, int) and isinstance(size, int):
        index = start + size if start < 0 else start
        return min(max(index, 0), size if step > 0 else max(size - 1, 0))
    if start == -1:
        return size - 1
    first = start
    if isinstance(start, int) or not is_at_least(start, 0, positive_symbols(shape)):
        first = at_least(from_front(start, size), 0)
    return first if step > 0 or start == 0 else at_most(first, at_least(size - 1, 0))
