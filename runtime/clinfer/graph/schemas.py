"""What the installed onnx knows about an operator: schema, attribute kinds, operands.

Part of the reader; imports onnx inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from clinfer.dtypes import BY_ONNX
from clinfer.graph import experimental
from clinfer.graph.contrib import schema as contrib

OLDEST_OPSET = 6


@lru_cache(maxsize=1)
def newest_opset() -> int:
    """The newest version of ONNX's own operator set that the installed onnx knows."""
    from onnx import defs

    return int(defs.onnx_opset_version())


@cache
def schema(domain: str, op: str, version: int) -> Any | None:
    """The operator's schema in force at `version` of its domain; None where there is none."""
    from onnx import defs

    if domain == contrib.DOMAIN:
        return contrib.schema(op)
    try:
        return defs.get_schema(op, version, "" if domain == "ai.onnx" else domain)
    except Exception:  # onnx's SchemaError is not importable from a stable place
        return None


@lru_cache(maxsize=1)
def known_domains() -> frozenset[str]:
    """The operator domains of the installed onnx."""
    from onnx import defs

    return frozenset([contrib.DOMAIN, *(s.domain for s in defs.get_all_schemas())])


def is_known(domain: str) -> bool:
    """Whether the installed onnx has operators of a domain. Only of rare ones it is asked for all
    of them, which takes longer than reading a small model."""
    return domain in ("", contrib.DOMAIN) or domain in known_domains()


@cache
def newest_version(domain: str) -> int:
    """The newest version of one of ONNX's operator sets that the installed onnx knows."""
    from onnx import defs

    if not domain:
        return newest_opset()
    if domain == contrib.DOMAIN:
        return 1
    return max(s.since_version for s in defs.get_all_schemas() if s.domain == domain)


@dataclass(frozen=True)
class Signature:
    """How many inputs and outputs an operator takes, its attributes' types, and which it needs."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    required: frozenset[str]
    attributes: Mapping[str, int]
    may_be_absent: tuple[bool, ...]


@cache
def signature(domain: str, op: str, version: int) -> Signature | None:
    """The operator's signature; None where ONNX has no such operator."""
    known = schema(domain, op, version)
    if known is None:
        other = None if domain else experimental.OPERATORS.get(op)
        if other is None:
            return None
        least, most = other.inputs
        absent = tuple(index >= least for index in range(most))
        return Signature(other.inputs, other.outputs, other.required, other.attributes, absent)
    required = frozenset(name for name, a in known.attributes.items() if a.required)
    inputs, outputs = (known.min_input, known.max_input), (known.min_output, known.max_output)
    attributes = {name: int(a.type.value) for name, a in known.attributes.items()}
    optional = tuple(entry.option.name == "Optional" for entry in known.inputs)
    return Signature(inputs, outputs, required, attributes, optional)


class Operand(NamedTuple):
    """An input's type: the variable that names it in the schema, and what that may be.

    `dtypes` are names of `clinfer.dtypes`, or 'sequence', 'optional' and 'map'.
    """

    name: str
    variable: str
    dtypes: frozenset[str]


@cache
def operands_of(domain: str, op: str, version: int) -> tuple[tuple[Operand, ...], Operand | None]:
    """An operator's inputs in order; the last one once more where it repeats."""
    known = schema(domain, op, version)
    if known is None:
        return (), None
    found = [_operand(entry) for entry in known.inputs]
    repeats = known.inputs and known.inputs[-1].option.name == "Variadic"
    return tuple(found), found[-1] if repeats else None


def _operand(entry: Any) -> Operand:
    """Operands whose types differ one from another have no variable in common."""
    variable = str(entry.type_str) if entry.is_homogeneous else ""
    return Operand(str(entry.name), variable, frozenset(map(_dtype_of, entry.types)))


@cache
def _dtype_of(text: str) -> str:
    """'float32' for 'tensor(float)', 'sequence' for 'seq(...)'; types not in our table keep it."""
    from onnx import TensorProto

    outer, _, inner = text.partition("(")
    if outer != "tensor":
        return {"seq": "sequence"}.get(outer, outer)
    entry = BY_ONNX.get(TensorProto.DataType.Value(inner[:-1].upper()))
    return text if entry is None else entry.name
