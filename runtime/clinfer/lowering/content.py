"""A plan's constants before they are made: what they are made of, and how.

Packing a weight makes a second one of it. So no constant is made while the graph, which has the
first ones, is still there: lowering gives a `Draft`, the graph is forgotten, and `Draft.finish`
makes one constant after the other and lets go of what it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clinfer.graph.ir import Array
from clinfer.lowering.plan import Buffer, Plan
from clinfer.mapping import drop_pages, is_mapped
from clinfer.threads import in_threads


@dataclass(frozen=True, eq=False)
class Content:
    """A constant of the plan: `source` as it is, dense, or what `apply` makes of it."""

    source: Array
    apply: Callable[[Array], Array] | None = None

    def make(self, alignment: int = 1, in_place: bool = False) -> Array:
        """The constant in memory of its own or of the source's, at a multiple of `alignment` bytes.

        It is never in a file of the model, but where `in_place`: then what is the source as it lies
        stays there, at any address, for as long as it takes to be copied to a device.
        """
        made = self.source if self.apply is None else self.apply(self.source)
        if in_place and made is self.source and made.flags.c_contiguous:
            return made
        owned = _owned(made, alignment)
        drop_pages(self.source)
        return owned


def _owned(array: Array, alignment: int) -> Array:
    """The array dense, aligned, and outside mapped files, which may change after compilation."""
    is_dense = array.flags.c_contiguous and array.flags.aligned
    if array.dtype.hasobject or alignment == 1:
        whole = is_dense and not is_mapped(array)
        return array if whole else np.array(array, order="C", copy=True)
    if is_dense and not is_mapped(array) and _address(array) % alignment == 0:
        return array
    memory = np.empty(array.nbytes + alignment, np.uint8)
    start = -_address(memory) % alignment
    copy: Array = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _address(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


class Draft:
    """A plan whose constants are yet to be made; all else in `plan` is final."""

    def __init__(self, plan: Plan, contents: Sequence[Content]) -> None:
        self.plan = plan
        self._contents: list[Content | None] = list(contents)

    @property
    def contents(self) -> list[Content]:
        """What the constants are to be made of; none of what has been made."""
        return [content for content in self._contents if content is not None]

    def finish(self, alignment: int = 1, in_place: bool = False) -> Plan:
        """The plan. Can be called once: what constants are made of is let go of.

        Each constant begins at a multiple of `alignment` bytes. The largest come first, when the
        least has been made already; threads make as many at a time as there are cores, 8 at most.
        With `in_place` weights that need no packing stay in the model's files, for the caller to
        take to a device at once (`Content.make`).
        """
        contents = self._contents
        weights = {b.constant for b in self.plan.buffers if b.kind == "const"} if in_place else ()
        sizes = [0 if content is None else content.source.nbytes for content in contents]
        order = sorted(range(len(contents)), key=lambda i: -sizes[i])

        def make(turn: int) -> Array:
            content, contents[order[turn]] = contents[order[turn]], None
            assert content is not None, "a draft is finished once"
            return content.make(alignment, order[turn] in weights)

        made = dict(zip(order, in_threads(make, len(order), sum(sizes)), strict=True))
        constants = tuple(made[index] for index in range(len(contents)))
        buffers = [_filled(buffer, constants) for buffer in self.plan.buffers]
        return replace(self.plan, constants=constants, buffers=tuple(buffers))


def _filled(buffer: Buffer, constants: Sequence[Array]) -> Buffer:
    """A constant's buffer with what is known of it now: a packed one's element type and size."""
    if buffer.kind != "const":
        return buffer
    content = constants[buffer.constant]
    return buffer._replace(dtype=content.dtype.name, size=content.size)
