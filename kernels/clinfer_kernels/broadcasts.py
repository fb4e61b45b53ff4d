"""What broadcasting makes of sizes that are not known yet: the joint size, and strides along it."""

from __future__ import annotations

from clinfer_kernels.dims import Dim, Expr, Opaque, opaque


def join(a: Dim, b: Dim) -> Dim | None:
    """The size that two sizes broadcast to, None where they cannot; each may turn out 1 in a run.

    Of a number other than 1 and a symbol it is the number: the symbol must fit it.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int):
        return None if isinstance(b, int) else a
    if isinstance(b, int):
        return b
    if b in joined(a) or _is_cut(b, a):
        return a
    return b if a in joined(b) or _is_cut(a, b) else opaque("join", a, b)


def joined(dim: Dim) -> frozenset[Dim]:
    """The sizes that broadcast to `dim` whatever they turn out to be: itself, and what it joins."""
    atom = _sole_atom(dim)
    if atom is None or atom.op != "join":
        return frozenset({dim})
    return frozenset({dim}) | joined(atom.left) | joined(atom.right)


def repeated(stride: Dim, size: Dim, wanted: Dim) -> Dim:
    """The stride of `size` places read as `wanted`: 0 where there turns out to be one to repeat."""
    if size == wanted or stride == 0 or (_is_cut(size, wanted) and not _is_cut(size, wanted, 1)):
        return stride
    if isinstance(size, int):
        return 0 if size == 1 else stride
    return opaque("step", size, stride)


def _is_cut(dim: Dim, size: Dim, most: int | None = None) -> bool:
    """Whether `dim` is min(size, number >= 1), or with `most` that number: 1 only where size is."""
    atom = _sole_atom(dim)
    if atom is None or atom.op != "min" or size not in atom[1:]:
        return False
    limit = atom.right if atom.left == size else atom.left
    return isinstance(limit, int) and (limit >= 1 if most is None else limit == most)


def _sole_atom(dim: Dim) -> Opaque | None:
    """The atom, where an expression is nothing but one opaque one."""
    if not isinstance(dim, Expr) or len(dim.terms) != 1:
        return None
    monomial, factor = dim.terms[0]
    (atom, power), *others = monomial
    return atom if isinstance(atom, Opaque) and (factor, power, others) == (1, 1, []) else None
