"""What layouts say about the axes of a tensor, and how one becomes another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinfer.api.shapes import Layout
from clinfer.errors import InputError

REST, ANY = "...", "?"


def as_layout(given: Any) -> Layout:
    """A `Layout` from one or its text. Raises `InputError` for what is none."""
    return given if isinstance(given, Layout) else Layout(given)


def names_of(layout: Layout, rank: int | None) -> tuple[str, ...]:
    """The name of each axis, '?' where it has none; '...' stays where the rank is not known.

    Raises `InputError` where the layout is for another rank.
    """
    names = layout._names
    if rank is None:
        return names
    if REST in names and len(names) - 1 <= rank:
        at = names.index(REST)
        return (*names[:at], *[ANY] * (rank - len(names) + 1), *names[at + 1 :])
    if len(names) != rank:
        raise InputError(
            f"the layout {layout} is for {len(names)} dimensions, the tensor has {rank}: give a "
            f"layout of {rank} letters"
        )
    return names


def axis_of(layout: Layout, name: str, rank: int) -> int:
    """The axis of that name. Raises `InputError` where the layout has none."""
    names = names_of(layout, rank)
    if name not in names:
        raise InputError(
            f"the layout {'is not known' if layout.empty else f'{layout} has no {name!r}'}: say "
            "with set_layout what the dimensions are, like 'NHWC'"
        )
    return names.index(name)


def made(names: Sequence[str]) -> Layout:
    """The layout with these names of axes."""
    return Layout(f"[{','.join(names)}]" if names else "**SCALAR**")


def permuted(layout: Layout, order: Sequence[int]) -> Layout:
    """The layout behind a transposition. Raises `InputError` where `order` is none."""
    if sorted(order) != list(range(len(order))):
        raise InputError(f"{list(order)} is no order of {len(order)} dimensions")
    if layout.empty:
        return layout
    names = names_of(layout, len(order))
    return made([names[axis] for axis in order])


def order_between(before: Layout, after: Layout, rank: int) -> list[int]:
    """The transposition from a layout to another; [] where nothing moves.

    Axes without a name keep their order. Raises `InputError` where names are missing.
    """
    old, new = names_of(before, rank), names_of(after, rank)
    if before.empty or after.empty or before == after:
        return []
    named = {name for name in old if name != ANY}, {name for name in new if name != ANY}
    if not (named[0] <= named[1] or named[1] <= named[0]):
        raise InputError(f"the layouts {before} and {after} have different dimensions")
    both = named[0] & named[1]
    rest = iter([axis for axis, name in enumerate(old) if name not in both])
    order = [old.index(name) if name in both else next(rest) for name in new]
    return [] if order == list(range(rank)) else order


def squeezed(larger: Layout, smaller: Layout) -> list[int] | None:
    """The axes of `larger` that `smaller` has, where it has fewer (HWC of NCHW); else None.

    Raises `InputError` where one does not name all its axes, or `smaller` has one of its own.
    """
    kept, given = larger._names, smaller._names
    if REST in kept or REST in given or len(kept) <= len(given):
        return None
    if ANY in kept or ANY in given or not set(given) <= set(kept):
        raise InputError(
            f"a tensor of layout {smaller} for a model of layout {larger}: all dimensions need "
            "names, and the model's must have those of the tensor"
        )
    return [axis for axis, name in enumerate(kept) if name in given]
