"""Prints `clinfer.operators.contrib_schemas` from the schemas of the installed ONNX Runtime.

    python tools/contrib_schemas.py > runtime/clinfer/operators/contrib_schemas.py

Only of operators that `clinfer.graph.contrib` has a rule for.
"""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from clinfer.graph.contrib import RULES

HEAD = """\"\"\"Schemas of operators of com.microsoft, by tools/contrib_schemas.py.

An entry: name, inputs -> outputs | attributes | types. '?' is optional, '*' repeats with one type,
'**' with any, '!' is required.
\"\"\"

TEXT = \"\"\"\\"""


_SHORT = 6  # types in one word: lines break between words


def schemas() -> dict[str, Any]:
    """The schemas of ONNX Runtime, by operator."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    every = ort.get_all_operator_schema()
    return {s.name: s for s in every if s.domain == "com.microsoft"}


def entry(schema: Any) -> str:
    """One schema as text."""
    parts = [schema.name, *map(_operand, schema.inputs), "->", *map(_operand, schema.outputs), "|"]
    parts += [_attribute(n, a) for n, a in sorted(schema.attributes.items())]
    parts.append("|")
    for constraint in schema.type_constraints:
        allowed = [_type(text) for text in constraint.allowed_type_strs]
        for start in range(0, len(allowed), _SHORT):
            some = ",".join(allowed[start : start + _SHORT])
            parts.append(f"{constraint.type_param_str}={some}")
    return fill(" ".join(parts), 98, subsequent_indent="  ", break_on_hyphens=False)


def _operand(operand: Any) -> str:
    option = str(operand.option).split(".")[-1]
    mark = {"Optional": "?", "Variadic": "*" if operand.isHomogeneous else "**"}.get(option, "")
    return f"{operand.name}{mark}:{_type(operand.typeStr)}"


def _type(text: str) -> str:
    return text.removeprefix("tensor(").removesuffix(")")


def _attribute(name: str, attribute: Any) -> str:
    kind = str(attribute.type).split(".")[-1]
    default = default_of(attribute)
    text = "" if default is None else f"={default}"
    return f"{name}{'!' if attribute.required else ''}:{kind}{text}"


def default_of(attribute: Any) -> str | None:
    """The default as text, None where there is none."""
    encoded = attribute._default_value
    if not encoded:
        return None
    value = helper.get_attribute_value(AttributeProto.FromString(encoded))
    if isinstance(value, bytes):
        return value.decode()
    return str(np.float32(value)) if isinstance(value, float) else str(value)


if __name__ == "__main__":
    known = schemas()
    print(HEAD)
    print("\n".join(entry(known[name]) for name in sorted(RULES)), end='\n"""\n')
