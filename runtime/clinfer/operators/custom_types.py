"""The parts of a declaration: inputs, outputs, attributes, types."""

from __future__ import annotations

from typing import Any, NamedTuple

from clinfer.dtypes import BY_NAME
from clinfer.operators.size_text import SizeText
from clinfer_kernels.dims import Dim, Expr

Shape = tuple[Dim, ...]


class TensorType(NamedTuple):
    """What is known of a tensor when the graph is made: sizes are integers or expressions.

    `shape` is None where not even the rank is known.
    """

    dtype: str | None
    shape: Shape | None


class Input(NamedTuple):
    """A declared input: the dtypes that it may have, and its dimensions, None for any.

    `like` names an input before it that has the same shape.
    """

    name: str
    dtypes: frozenset[str]
    shape: tuple[str | int, ...] | None
    like: str = ""


class Output(NamedTuple):
    """A declared output: a dtype or an input's name, sizes or an input's name; None: the function
    says so, or of a size that only the run tells."""

    name: str
    dtype: str | None
    shape: tuple[SizeText | None, ...] | str | None


class Attribute(NamedTuple):
    """A declared attribute: its kind, as `AttributeProto.type` has it, and its default or None."""

    kind: int
    default: Any


def is_type(given: Any) -> bool:
    """Whether it is (dtype, shape), sizes being integers, expressions or None."""
    if not isinstance(given, tuple) or len(given) != 2 or given[0] not in BY_NAME:
        return False
    if not isinstance(given[1], (list, tuple)):
        return False
    return all(d is None or isinstance(d, (Expr, int)) for d in given[1])
