"""The schemas of com.microsoft are the installed ONNX Runtime's, and what is unknown is refused."""

from __future__ import annotations

import pytest
from contrib_helpers import model, numbers

from clinfer.errors import ModelError, ShapeError
from clinfer.graph.contrib import RULES
from clinfer.graph.contrib.schema import names, schema
from clinfer.graph.reader import read


def described(known: object) -> object:
    """What a schema says, of onnx's and of ONNX Runtime's alike."""
    from onnx import AttributeProto, helper

    def operand(entry: object) -> object:
        option = str(entry.option).split(".")[-1]
        types = entry.type_str if hasattr(entry, "type_str") else entry.typeStr
        same = entry.is_homogeneous if hasattr(entry, "type_str") else entry.isHomogeneous
        return entry.name, types, option, same if option == "Variadic" else True

    def default(attribute: object) -> object:
        value = attribute.default_value if hasattr(attribute, "default_value") else None
        if value is None:
            value = AttributeProto.FromString(attribute._default_value or b"")
        return helper.get_attribute_value(value) if value.type else None

    return (
        [operand(e) for e in known.inputs],
        [operand(e) for e in known.outputs],
        (known.min_input, known.max_input, known.min_output, known.max_output),
        {
            n: (str(a.type).split(".")[-1], a.required, default(a))
            for n, a in known.attributes.items()
        },
        {c.type_param_str: set(c.allowed_type_strs) for c in known.type_constraints},
    )


def test_schemas_are_those_of_onnx_runtime() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    theirs = {s.name: s for s in ort.get_all_operator_schema() if s.domain == "com.microsoft"}
    for name in names():
        assert described(schema(name)) == described(theirs[name]), name


def test_every_rule_has_a_schema() -> None:
    assert set(RULES) == set(names())


def test_an_unknown_operator_is_refused_with_the_nearest_known_one() -> None:
    content = model("FastGellu", {"x": numbers(2)})
    with pytest.raises(ModelError, match=r"'FastGellu'.*nearest known one is.*FastGelu"):
        read(content)


def test_missing_and_wrong_attributes_are_named() -> None:
    inputs = {"x": numbers(1, 2, 2, 4), "g": numbers(4), "b": numbers(4)}
    with pytest.raises(ModelError, match="'activation'"):
        read(model("GroupNorm", inputs, {"groups": 2}))
    with pytest.raises(ModelError, match="no attribute 'alpha'"):
        read(model("GroupNorm", inputs, {"groups": 2, "activation": 0, "alpha": 1.0}))
    with pytest.raises(ModelError, match="'groups': expected 1 to"):
        read(model("GroupNorm", inputs, {"groups": 0, "activation": 0}))


def test_wrong_types_are_named() -> None:
    inputs = {"x": numbers(2, 4).astype("int32")}
    with pytest.raises(ModelError, match="input 0"):
        read(model("FastGelu", inputs))


def test_ranks_that_do_not_fit_are_named() -> None:
    inputs = {"x": numbers(2, 4), "w": numbers(4, 24), "b": numbers(24)}
    with pytest.raises(ShapeError, match="input 0: 3 dimensions expected"):
        read(model("Attention", inputs, {"num_heads": 2}))
    with pytest.raises(ShapeError, match="input 1: 1 dimensions expected"):
        read(model("BiasGelu", {"x": numbers(4), "b": numbers(2, 4)}))


@pytest.mark.parametrize(
    ("domain", "op", "advice"),
    [
        ("com.microsoft.nchwc", "Conv", "ORT_ENABLE_EXTENDED"),
        ("com.microsoft", "BeamSearch", "export the decoder"),
        ("com.microsoft", "EPContext", "binary for one device"),
        ("ai.onnx.contrib", "BertTokenizer", "before or after"),
    ],
)
def test_what_is_refused_says_what_to_do(domain: str, op: str, advice: str) -> None:
    content = model(op, {"x": numbers(2, 3)}, domain=domain)
    content.opset_import[1].domain = domain
    with pytest.raises(ModelError, match=f"'{op}' of '{domain}' is not supported.*{advice}"):
        read(content)
