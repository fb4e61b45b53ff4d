"""Schemas of com.microsoft as onnx's own objects, from the text in `operators.contrib_schemas`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from clinfer.operators.contrib_schemas import TEXT

DOMAIN = "com.microsoft"


@cache
def schema(op: str) -> Any | None:
    """An operator's schema; None where clinfer does not know it."""
    entry = _entries().get(op)
    return None if entry is None else _schema(op, entry)


def names() -> list[str]:
    """The operators that there are schemas of."""
    return list(_entries())


@cache
def _entries() -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in TEXT.splitlines():
        words = line.split()
        if not line.startswith(" "):
            found[words[0]] = []
        found[next(reversed(found))] += words if line.startswith(" ") else words[1:]
    return found


def _schema(op: str, words: list[str]) -> Any:
    from onnx.defs import OpSchema

    arrow, first = words.index("->"), words.index("|")
    second = words.index("|", first + 1)
    variables: dict[str, list[str]] = {}
    for name, allowed in (word.split("=") for word in words[second + 1 :]):
        variables.setdefault(name, []).extend(f"tensor({t})" for t in allowed.split(","))
    return OpSchema(
        op,
        DOMAIN,
        1,
        inputs=[_operand(word, variables) for word in words[:arrow]],
        outputs=[_operand(word, variables) for word in words[arrow + 1 : first]],
        attributes=[_attribute(word) for word in words[first + 1 : second]],
        type_constraints=[(name, allowed, "") for name, allowed in variables.items()],
    )


def _operand(word: str, variables: Collection[str]) -> Any:
    from onnx.defs import OpSchema

    options = OpSchema.FormalParameterOption
    name, type_ = word.split(":")
    option = {"?": options.Optional, "*": options.Variadic}.get(name[-1], options.Single)
    return OpSchema.FormalParameter(
        name.rstrip("?*"),
        type_ if type_ in variables else f"tensor({type_})",
        param_option=option,
        is_homogeneous=not name.endswith("**"),
    )


def _attribute(word: str) -> Any:
    from onnx import helper
    from onnx.defs import OpSchema

    head, _, default = word.partition("=")
    name, kind = head.split(":")
    type_ = getattr(OpSchema.AttrType, kind)
    if not default:
        return OpSchema.Attribute(name.rstrip("!"), type_, required=name.endswith("!"))
    convert: dict[str, Any] = {"INT": int, "FLOAT": float, "STRING": str}
    return OpSchema.Attribute(name, helper.make_attribute(name, convert[kind](default)))
