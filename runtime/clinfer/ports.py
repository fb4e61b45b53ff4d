"""`Port`: an input or output of a model, compiled or not."""

from __future__ import annotations

from typing import NamedTuple

PortShape = tuple[int | str | None, ...]


class Port(NamedTuple):
    """An input or output of a model.

    `shape` holds a size, the name of a dynamic dimension, or None for one without a name; it is
    None where the model does not even fix the rank. `dtype` is an element type's name ('float32').
    """

    name: str
    shape: PortShape | None
    dtype: str
