"""Optionals: what holds a tensor or a sequence counts as its content."""

from __future__ import annotations

from clinfer.dtypes import BY_NAME
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape, same


def get_element(call: Call) -> list[Type]:
    """OptionalGetElement: the content of an optional; tensors and sequences pass."""
    value = call.value(0)
    if value.dtype in BY_NAME:
        return same(call)
    if value.dtype != "sequence":
        raise UnknownShape
    call.node.output.type_proto = value.type_proto
    return [Type("sequence", None)]


def has_element(call: Call) -> list[Type]:
    """OptionalHasElement: a truth value."""
    return [Type("bool", ())]


RULES: dict[str, Rule] = {
    "OptionalGetElement": get_element,
    "OptionalHasElement": has_element,
}
