"""`Shape`, and names of dimensions that are not fixed."""

from __future__ import annotations

PortShape = tuple[int | str | None, ...]
Bounds = tuple[int, int | None]
"""The least and the greatest size of a dynamic dimension; None where there is no greatest."""

# What exporters write where a dimension has no name; so is any text without a letter: '?', '-1'.
_NO_NAMES = frozenset({"none", "null", "nil", "unk", "unknown", "undefined", "dynamic", "any"})


def dimension_name(text: str) -> str | None:
    """The name of a dynamic dimension; None where the text does not name it.

    Dimensions of one name have one size; those without are independent of each other.
    """
    if text.lower() in _NO_NAMES or not any(c.isalpha() for c in text):
        return None
    return text


_IN_BRANCHES = "~@"


def name_in(name: str, branches: str) -> str:
    """A name for a dimension that only these branches of Ifs read (`graph.namesakes`)."""
    return f"{name}{_IN_BRANCHES}{branches}"


def name_in_file(name: str) -> str:
    """The name that the model's file has for a dimension."""
    return name.partition(_IN_BRANCHES)[0]


class Shape(tuple[int | str | None, ...]):
    """A shape: a tuple that is also equal to a list of the same sizes."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def to_string(self) -> str:
        """'[1,3,?]', names of dimensions as they are."""
        return "[" + ",".join("?" if size is None else str(size) for size in self) + "]"
