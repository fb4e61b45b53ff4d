"""What is known about the value of a size before its symbols are bound: intervals.

Symbols are sizes, hence >= 0. None stands for 'no bound known'.
"""

from __future__ import annotations

from collections.abc import Iterable

from clinfer_kernels.dims import Atom, Dim, Expr, Sym, maximum, minimum

Interval = tuple[int | None, int | None]


def lower_bound(dim: Dim) -> int | None:
    """A number that `dim` is never below."""
    return interval(dim)[0]


def upper_bound(dim: Dim) -> int | None:
    """A number that `dim` is never above."""
    return interval(dim)[1]


def from_front(index: Dim, size: Dim) -> Dim:
    """`index` counted from the front of `size` places: `index` + `size` where it is negative.

    Of an index whose sign the sizes decide: index + size * min(max(-index, 0), 1).
    """
    least, most = interval(index)
    if least is not None and least >= 0:
        return index
    if most is not None and most < 0:
        return index + size
    return index + size * minimum(maximum(-index, 0), 1)


def at_least(value: Dim, low: Dim) -> Dim:
    """max(`value`, `low`), simplified where it is known which of them it is."""
    gap = interval(value - low)
    if gap[0] is not None and gap[0] >= 0:
        return value
    return low if gap[1] is not None and gap[1] <= 0 else maximum(value, low)


def at_most(value: Dim, high: Dim) -> Dim:
    """min(`value`, `high`), simplified where it is known which of them it is."""
    gap = interval(high - value)
    if gap[0] is not None and gap[0] >= 0:
        return value
    return high if gap[1] is not None and gap[1] <= 0 else minimum(value, high)


def interval(dim: Dim) -> Interval:
    """Both bounds, by interval arithmetic over the terms."""
    if not isinstance(dim, Expr):
        return int(dim), int(dim)
    total: Interval = (0, 0)
    for monomial, factor in dim.terms:
        term: Interval = (factor, factor)
        for atom, power in monomial:
            for _ in range(power):
                term = _times(term, _atom(atom))
        total = (_plus(total[0], term[0]), _plus(total[1], term[1]))
    return total


def _atom(atom: Atom) -> Interval:
    if isinstance(atom, Sym):
        return 0, None
    left, right = interval(atom.left), interval(atom.right)
    if atom.op in ("join", "step"):
        low = 0 if atom.op == "step" else None
        ends = [left[0], right[0]] if low is None else [0, right[0]]
        return _least(ends), _greatest([left[1] if low is None else 0, right[1]])
    if atom.op == "min":
        return _least([left[0], right[0]]), _best(min, (left[1], right[1]))
    if atom.op == "max":
        return _best(max, (left[0], right[0])), _greatest([left[1], right[1]])
    divisor = atom.right
    if not isinstance(divisor, int) or divisor <= 0:
        return (0 if _non_negative(left) and _non_negative(right) else None), None
    if atom.op == "mod":
        return 0, divisor - 1
    low = None if left[0] is None else left[0] // divisor
    return low, None if left[1] is None else left[1] // divisor


def _non_negative(bounds: Interval) -> bool:
    return bounds[0] is not None and bounds[0] >= 0


def _plus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _times(a: Interval, b: Interval) -> Interval:
    """The product's interval; unbounded ends only where the signs are clear."""
    if None not in (*a, *b):
        ends = [x * y for x in a for y in b]  # type: ignore[operator]
        return min(ends), max(ends)
    if _non_negative(a) and _non_negative(b):
        high = None if a[1] is None or b[1] is None else a[1] * b[1]
        return a[0] * b[0], high  # type: ignore[operator]
    if a[1] is not None and a[1] <= 0 and _non_negative(b):
        return (None if a[0] is None or b[1] is None else a[0] * b[1]), a[1] * b[0]  # type: ignore[operator]
    return None, None


def _least(ends: Iterable[int | None]) -> int | None:
    known = list(ends)
    return None if None in known else min(e for e in known if e is not None)


def _greatest(ends: Iterable[int | None]) -> int | None:
    known = list(ends)
    return None if None in known else max(e for e in known if e is not None)


def _best(pick: object, ends: Iterable[int | None]) -> int | None:
    known = [e for e in ends if e is not None]
    return pick(known) if known else None  # type: ignore[operator]
