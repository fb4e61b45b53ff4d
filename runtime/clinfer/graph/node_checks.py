"""What is asked of a node when it is read: its operator, attributes, and types of its operands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clinfer import operators
from clinfer.errors import ModelError
from clinfer.graph.contrib import schema as contrib
from clinfer.graph.ir import Node
from clinfer.graph.protos import attribute_kind
from clinfer.graph.schemas import (
    Signature,
    known_domains,
    newest_opset,
    operands_of,
    schema,
    signature,
)
from clinfer.operators.values import shortened

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto

    from clinfer.operators.custom import CustomOperator


_LAID_OUT = (
    "ONNX Runtime has laid the model out for the processor or device that saved it; save it with "
    "graph_optimization_level ORT_ENABLE_EXTENDED, not ORT_ENABLE_ALL, or give the model it was "
    "made of"
)
_GENERATES = (
    "it is a loop of generation around a decoder; export the decoder as a model of its own, with "
    "its past as inputs (optimum's text-generation-with-past, onnxruntime-genai), and choose "
    "tokens in the program"
)
_COMPILED = "it holds a binary for one device; give the model it was made of"
_PROCESSES = (
    "it is of onnxruntime-extensions; do what it does (tokens, pictures, sounds) before or after "
    "the model, or give it to the Core with add_extension (docs/extensions.md)"
)
# What to do about operators of a domain, or one of them, that are not taken.
_INSTEAD = {
    "com.microsoft.nchwc": _LAID_OUT,
    "com.ms.internal.nhwc": _LAID_OUT,
    "ai.onnx.contrib": _PROCESSES,
    "com.microsoft.extensions": _PROCESSES,
    f"{contrib.DOMAIN}.EPContext": _COMPILED,
    **dict.fromkeys(
        (
            f"{contrib.DOMAIN}.{op}"
            for op in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")
        ),
        _GENERATES,
    ),
}


def check_node(proto: NodeProto, domain: str, version: int, where: str) -> None:
    """`ModelError` for an unknown operator, or one whose inputs or attributes are not its schema's.

    What attributes hold, and the inputs' types, are looked at when these are known.
    """
    known = signature(domain, proto.op_type, version)
    if known is None:
        raise _unknown(domain, proto.op_type, version, where)
    check_signature(proto, known, where)


def custom_signature(operator: CustomOperator) -> Signature:
    """The signature of an operator that the program has added."""
    count = len(operator.inputs)
    attributes = {name: a.kind for name, a in operator.attributes.items()}
    required = frozenset(n for n, a in operator.attributes.items() if a.default is None)
    outputs = (1, len(operator.outputs))
    return Signature((count, count), outputs, required, attributes, (False,) * count)


def check_signature(proto: NodeProto, known: Signature, where: str) -> None:
    """`ModelError` where a node's inputs, outputs or attributes are not those of a signature."""
    lists = ((proto.input, known.inputs, "inputs"), (proto.output, known.outputs, "outputs"))
    for given, (least, most), what in lists:
        if not least <= len(given) <= most:
            raise ModelError(f"{where}: {least} to {most} {what} expected, found {len(given)}")
    for index, name in enumerate(proto.input):
        if not name and not known.may_be_absent[min(index, len(known.may_be_absent) - 1)]:
            raise ModelError(f"{where}: input {index} must be there, found an empty name")
    names = {a.name for a in proto.attribute}
    if len(names) != len(proto.attribute):
        raise ModelError(f"{where}: one of its attributes is there twice")
    missing = known.required - names
    if missing:
        raise ModelError(f"{where}: it must have the attribute '{min(missing)}'")
    for attribute in proto.attribute:
        _check_attribute(attribute, known.attributes, where)


def _check_attribute(attribute: AttributeProto, known: Mapping[str, int], where: str) -> None:
    wanted = known.get(attribute.name)
    if wanted is None:
        raise ModelError(
            f"{where}: it has no attribute {shortened(attribute.name)}; its attributes are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    found = attribute_kind(attribute)
    if found != wanted:
        from onnx import AttributeProto as A

        expected, given = (_kind_name(A, kind) for kind in (wanted, found))
        raise ModelError(
            f"{where}: attribute '{attribute.name}': type {expected} expected, found {given}"
        )


def _kind_name(kinds: Any, number: int) -> str:
    known = kinds.AttributeType.values()
    return str(kinds.AttributeType.Name(number)) if number in known else f"number {number}"


def check_types(node: Node) -> None:
    """`ModelError` where an input's element type is not one that the operator's schema allows."""
    count = len(node.inputs) - node.captures
    dtypes = tuple(None if v is None else v.dtype for v in node.inputs[:count])
    fault = _type_fault(node.domain, node.op, node.version or newest_opset(), dtypes)
    if fault is not None:
        index, what = fault
        raise ModelError(
            f"{node.describe()}: input {index} ('{node.required(index).name}'): {what}, found "
            f"{dtypes[index]}"
        )


@lru_cache(maxsize=4096)
def _type_fault(
    domain: str, op: str, version: int, dtypes: tuple[str | None, ...]
) -> tuple[int, str] | None:
    """The first input whose type is wrong, and what was expected."""
    operands, rest = operands_of(domain, op, version)
    bound: dict[str, tuple[int, str]] = {}
    for index, dtype in enumerate(dtypes):
        operand = operands[index] if index < len(operands) else rest
        if dtype is None or operand is None or "optional" in operand.dtypes:
            continue  # an optional that has a content is that content
        if dtype not in operand.dtypes:
            return index, f"'{operand.name}' is one of {', '.join(sorted(operand.dtypes))}"
        first, known = bound.setdefault(operand.variable or f"{index}", (index, dtype))
        if known != dtype:
            return index, f"{known}, as input {first} has, expected"
    return None


def _unknown(domain: str, op: str, version: int, where: str) -> ModelError:
    instead = _INSTEAD.get(domain) or _INSTEAD.get(f"{domain}.{op}")
    if instead is not None:
        return ModelError(f"{where}: operator '{op}' of '{domain}' is not supported: {instead}")
    if domain not in known_domains():
        return ModelError(
            f"{where}: operator '{op}' of the custom domain '{domain}' is not known and the model "
            "carries no function of that name; export the model with standard ONNX operators, or "
            "give it to the Core with add_extension before the model is read (docs/extensions.md)"
        )
    near = _nearest_known(op)
    if domain == contrib.DOMAIN:
        return ModelError(
            f"{where}: operator '{op}' of '{domain}' is not supported{near}; docs/contrib.md lists "
            "those that are: export the model without it"
        )
    newest = schema(domain, op, newest_opset())
    hint = (
        f"it exists from version {newest.since_version} of the operator set on"
        if newest is not None
        else f"ONNX has no such operator{near}"
    )
    name = domain or "ai.onnx"
    return ModelError(
        f"{where}: operator '{op}' is not in version {version} of the operator set '{name}', which "
        f"the model imports; {hint}: export the model again, or install a newer onnx"
    )


def _nearest_known(op: str) -> str:
    """Names an operator that is known and is written nearly so."""
    from difflib import get_close_matches

    kinds = {kind.rpartition(".")[2]: kind for kind in sorted(operators.table(), reverse=True)}
    near = get_close_matches(op, kinds, 1)
    return f" (the nearest known one is '{kinds[near[0]]}')" if near else ""
