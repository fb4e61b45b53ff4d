"""What must hold between an operator's operands: small functions that records are made of.

Each maker gives a relation, a function of a `Call`. Operands are numbered as inputs; one that is
absent is not looked at. `Size` is a size with words for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Union

from clinfer_kernels.dims import Dim, Expr, floordiv, product

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call
    from clinfer.operators import Relation

Shape = tuple[Dim, ...]


class Size(NamedTuple):
    """A size of a call: `text` says what it is."""

    text: str
    of: Callable[[Call], Dim]


Wanted = Union["Size", "int", None]


def dim(index: int, axis: int) -> Size:
    """The size of one axis of an input."""
    return Size(f"axis {axis} of input {index}", lambda call: size(call, index, axis))


def times(a: Size, b: Size | int) -> Size:
    """A product of two sizes."""
    if isinstance(b, int):
        return Size(f"{b} times {a.text}", lambda call: a.of(call) * b)
    return Size(f"{a.text} times {b.text}", lambda call: a.of(call) * b.of(call))


def attribute(name: str, default: int) -> Size:
    """A size that an attribute states."""
    return Size(f"'{name}'", lambda call: int(call.attr(name, default)))


def size(call: Call, index: int, axis: int) -> Dim:
    """The size of an axis of an input; `ShapeError` where there is none."""
    shape = call.shape(index)
    if not -len(shape) <= axis < len(shape):
        raise call.error(f"{_name(call, index)}: more than {len(shape)} dimensions expected")
    return shape[axis]


def _name(call: Call, index: int) -> str:
    return f"input {index} ('{call.value(index).name}')"


# -- ranks and axes ------------------------------------------------------------------------------


def rank(index: int, *allowed: int, least: int | None = None) -> Relation:
    """An input has one of these ranks, or at least so many dimensions."""
    what = " or ".join(map(str, allowed)) if least is None else f"at least {least}"

    def check(call: Call) -> None:
        if call.has(index):
            found = call.rank(index)
            if found not in allowed and (least is None or found < least):
                raise call.error(f"{_name(call, index)}: {what} dimensions expected, found {found}")

    return check


def axis(name: str = "axis", of: int = 0) -> Relation:
    """The axis that an attribute names is one of the input's."""

    def check(call: Call) -> None:
        if call.attr(name) is not None:
            call.normal(int(call.attr(name)), call.rank(of))

    return check


def axes(name: str = "axes", index: int | None = None, of: int = 0, once: bool = True) -> Relation:
    """The axes named by an attribute, or by input `index` where its content is known.

    `once`: each at most once.
    """

    def check(call: Call) -> None:
        given = call.attr(name)
        if given is None and index is not None:
            given = known(call, index)
        if given is not None:
            found = [call.normal(a, call.rank(of)) for a in given]
            if once and len(set(found)) != len(found):
                raise call.error(f"the axes {list(given)} name a dimension twice")

    return check


def known(call: Call, index: int) -> list[int] | None:
    """The integers of an input; None where they are not all known when compiled."""
    content = call.content(index)
    if content is None:
        return None
    found = [int(d) for d in content.ravel() if not isinstance(d, Expr)]
    return found if len(found) == content.size else None


# -- shapes --------------------------------------------------------------------------------------


def shaped(index: int, *wanted: Wanted, fits: bool = False) -> Relation:
    """An input has exactly this shape; `fits`: each of its sizes may be 1 as well."""

    def check(call: Call) -> None:
        if not call.has(index):
            return
        shape = call.shape(index)
        if len(shape) != len(wanted):
            raise call.error(
                f"{_name(call, index)}: {len(wanted)} dimensions expected, found {len(shape)}"
            )
        for number, (own, other) in enumerate(zip(shape, wanted, strict=True)):
            if other is not None:
                _hold(call, own, other, f"axis {number} of {_name(call, index)}", fits)

    return check


def _hold(call: Call, own: Dim, wanted: Size | int, what: str, fits: bool) -> None:
    other = wanted if isinstance(wanted, int) else wanted.of(call)
    text = wanted if isinstance(wanted, int) else wanted.text
    (call.fits if fits else call.equal)(own, other, f"{what} and {text}")


def one(*indices: int) -> Relation:
    """Inputs of one element each."""

    def check(call: Call) -> None:
        for index in indices:
            for number, own in enumerate(call.shape(index) if call.has(index) else ()):
                call.equal(own, 1, f"axis {number} of {_name(call, index)}, a scalar, and 1")

    return check


def like(index: int, other: int) -> Relation:
    """An input has another one's shape."""

    def check(call: Call) -> None:
        if call.has(index):
            same(call, index, call.shape(other), f"input {other}")

    return check


def same(call: Call, index: int, wanted: Sequence[Dim], text: str) -> None:
    """Requires an input to have this shape."""
    shape = call.shape(index)
    if len(shape) != len(wanted):
        raise call.error(
            f"{_name(call, index)}: {len(wanted)} dimensions, as {text} has, expected, found "
            f"{len(shape)}"
        )
    for number, (own, right) in enumerate(zip(shape, wanted, strict=True)):
        call.equal(own, right, f"axis {number} of {_name(call, index)} and of {text}")


def within(index: int, other: int, free: Callable[[Call], Iterable[int]]) -> Relation:
    """An input's sizes are at most another one's, but for the axes that are `free`."""

    def check(call: Call) -> None:
        if not call.has(index):
            return
        own, wanted = call.shape(index), call.shape(other)
        if len(own) != len(wanted):
            raise call.error(f"inputs {other} and {index} of one rank expected")
        for number in set(range(len(own))) - set(free(call)):
            what = f"axis {number} of {_name(call, index)} and of input {other}"
            call.at_most(own[number], wanted[number], what)

    return check


def spread(index: int, to: Callable[[Call], Shape], text: str) -> Relation:
    """An input broadcasts, in one direction, to a shape."""

    def check(call: Call) -> None:
        if call.has(index):
            spread_to(call, index, to(call), text)

    return check


def spread_to(call: Call, index: int, target: Shape, text: str) -> None:
    """Requires an input to broadcast to a shape."""
    own = call.shape(index)
    if len(own) > len(target):
        raise call.error(
            f"{_name(call, index)}: at most {len(target)} dimensions expected, to broadcast to "
            f"{text}, found {len(own)}"
        )
    start = len(target) - len(own)
    for number, (left, right) in enumerate(zip(own, target[start:], strict=True)):
        what = f"axis {number} of {_name(call, index)} and axis {start + number} of {text}"
        call.fits(left, right, what)


def multiple(whole: Size, part: Size | int) -> Relation:
    """A size is a multiple of another one that is known when compiled."""

    def check(call: Call) -> None:
        by = part if isinstance(part, int) else part.of(call)
        text = f"a multiple of {by}" if isinstance(part, int) else f"a multiple of {part.text}"
        total = whole.of(call)
        if by == 0:
            raise call.error(f"{whole.text}: {text} expected, found {total} and 0")
        if isinstance(by, int):
            call.equal(
                floordiv(total, by) * by, total, f"{whole.text}, and rounded down to {text},"
            )

    return check


# -- contents ------------------------------------------------------------------------------------


def not_below(index: int, least: int = 0) -> Relation:
    """The elements of an integer input, where they are known: none is below `least`."""

    def check(call: Call) -> None:
        content = call.content(index) if call.has(index) else None
        for own in () if content is None else content.ravel():
            if not isinstance(own, Expr) and own < least:
                raise call.error(
                    f"{_name(call, index)}: sizes of {least} or more expected, found {own}"
                )

    return check


def elements(index: int, count: Callable[[Call], Dim], text: str) -> Relation:
    """An input, mostly a vector of integers, has so many elements."""

    def check(call: Call) -> None:
        if call.has(index):
            call.equal(
                product(call.shape(index)),
                count(call),
                f"the elements of input {index} ('{call.value(index).name}') and {text}",
            )

    return check


def same_length(*indices: int) -> Relation:
    """Inputs, where they are there, have as many elements as the first."""

    def check(call: Call) -> None:
        first, *rest = indices
        for index in rest:
            elements(index, lambda c: product(c.shape(first)), f"those of input {first}")(call)

    return check
