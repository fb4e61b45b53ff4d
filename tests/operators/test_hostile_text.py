"""No text from a model reaches a source: attributes, names of nodes, values, sizes and domains."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from operator_helpers import TARGETS, kind_of, model, schemas, sources

from clinfer.errors import ModelError, ShapeError, UnsupportedError
from clinfer.graph.reader import read
from clinfer.operators import table
from clinfer.operators.values import TEXT
from clinfer_kernels.common import kernel_head, with_helpers
from clinfer_kernels.expr import Expr, Line
from clinfer_kernels.guard import UnsafeTextError
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import GatherSpec, PadSpec, PointwiseSpec

MARK = "zzhostile"
HOSTILE = (
    f'{MARK}"; system("x',
    f'{MARK}\n#include "/etc/passwd"\n',
    f"*/ {MARK}(); /*",
    f"{MARK}); }}",
    "maxnan",
    "quotient",
    "load_float32x8",
    f"{MARK}$x {{0}} %s",
    f"{MARK}\N{SNOWMAN}\N{RIGHT-TO-LEFT OVERRIDE}",
    f"{MARK}\0",
    MARK * 20_000,
    f"{MARK}\\\n",
)
NOT_UTF8 = b"\xff\xfe" + MARK.encode()
REFUSALS = (ModelError, ShapeError, UnsupportedError)

TEXTS = [
    (schema, name)
    for schema in schemas()
    for name, attribute in sorted(schema.attributes.items())
    if "STRING" in attribute.type.name and (schema.domain or schema.since_version > 6)
]


def _some(name: str, kind: int) -> Any:
    """A value that an attribute may have."""
    text = {"mode": "TF", "direction": "LEFT"}.get(name, "x")
    return {
        AttributeProto.INT: 1,
        AttributeProto.FLOAT: 1.0,
        AttributeProto.INTS: [1],
        AttributeProto.FLOATS: [1.0],
        AttributeProto.STRING: text,
        AttributeProto.STRINGS: [text],
    }[kind]


def _node(schema: Any, name: str, text: Any) -> onnx.ModelProto:
    """A node of an operator with that text in an attribute, and what else it must have."""
    kinds = {n: int(a.type.value) for n, a in schema.attributes.items()}
    needed = {n: _some(n, kinds[n]) for n, a in schema.attributes.items() if a.required}
    listed = kinds[name] == AttributeProto.STRINGS
    attributes = {**needed, name: [text] if listed else text}
    shape = (1, 1, 4, 4)
    inputs = {f"x{i}": (TensorProto.FLOAT, shape) for i in range(schema.min_input)}
    return model(
        schema.name,
        inputs,
        domain=schema.domain,
        opset=schema.since_version,
        outputs=max(schema.min_output, 1),
        **attributes,
    )


def _is_free(schema: Any, name: str) -> bool:
    return table()[kind_of(schema)].values[name] is TEXT


def _name(value: Any) -> str:
    return value if isinstance(value, str) else f"{kind_of(value)}-{value.since_version}"


@pytest.mark.parametrize(("schema", "name"), TEXTS, ids=_name)
def test_attributes_take_their_words_and_nothing_else(schema, name):
    for text in (*HOSTILE, NOT_UTF8):
        proto = _node(schema, name, text)
        if not _is_free(schema, name) or text is NOT_UTF8:
            # A word of letters is an equation, of more axes than there are.
            wanted = "Einsum" if schema.name == "Einsum" else f"attribute '{name}'"
            with pytest.raises((ModelError, ShapeError), match=wanted) as caught:
                read(proto)
            assert len(str(caught.value)) < 1000
            continue
        try:
            made = sources(proto, TARGETS[0])
        except REFUSALS:
            continue
        assert not any(text in source or MARK in source for source in made)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_are_in_no_source(text):
    infos = [
        helper.make_tensor_value_info(f"x{text}", TensorProto.FLOAT, [f"n{text}", 3, "h", "w"]),
        helper.make_tensor_value_info(f"y{text}", TensorProto.FLOAT, None),
    ]
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), f"w{text}")
    pads = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), f"p{text}")
    nodes = [
        helper.make_node("Pad", [f"x{text}", f"p{text}"], [f"a{text}"], mode="reflect", name=text),
        helper.make_node("Conv", [f"a{text}", f"w{text}"], [f"b{text}"], name=f"conv{text}"),
        helper.make_node("Softmax", [f"b{text}"], [f"c{text}"], name=text, axis=1),
        helper.make_node("Add", [f"c{text}", f"b{text}"], [f"y{text}"], name=text),
    ]
    graph = helper.make_graph(nodes, text, infos[:1], infos[1:], [weights, pads], text)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for target in TARGETS:
        made = sources(proto, target)
        assert made
        assert not any(MARK in source or not source.isascii() for source in made)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_unknown_operators_and_domains_are_refused(text):
    for op, domain in ((text, ""), ("Relu", text), (text, text)):
        inputs = {"x": (TensorProto.FLOAT, (3,))}
        node = helper.make_node(op, ["x"], ["y"], domain=domain)
        proto = model("Relu", inputs)
        del proto.graph.node[:]
        proto.graph.node.append(node)
        proto.opset_import.append(helper.make_opsetid(text, 1))
        with pytest.raises(ModelError):
            read(proto)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_spec_refuses_what_is_no_word_of_its_fields(text):
    x = dense("float32", (4,))
    with pytest.raises(UnsafeTextError, match="'mode'"):
        PadSpec(text, (1,), (x,), (x,))  # type: ignore[arg-type]
    with pytest.raises(UnsafeTextError, match="'begins'"):
        PadSpec("edge", (text,), (x,), (x,))  # type: ignore[arg-type]
    with pytest.raises(UnsafeTextError, match="'kind'"):
        GatherSpec(text, 0, 0, (x, x), (x,))  # type: ignore[arg-type]
    for line in (
        Line(text, (0,), "float32"),
        Line("neg", (0,), text),
        Line("const", (), "float32", (text,)),
    ):
        with pytest.raises(UnsafeTextError, match="'expr'"):
            PointwiseSpec(Expr(("float32",), (line,), (1,)), (x,), (x,))
    with pytest.raises(UnsafeTextError, match="'ins'"):
        PointwiseSpec(Expr(("float32",), (), (0,)), (dense(text, (4,)),), (x,))


def test_texts_have_plain_letters_and_include_nothing():
    for body in (
        '#include "x"\n',
        "  # include <x>\n",
        '%:include "x"\n',
        "int \N{SNOWMAN};",
        "\0",
    ):
        with pytest.raises(UnsafeTextError):
            with_helpers(f"int a;\n{body}", Target())
    for name in ("a b", "a;", "", "1a", "a\n", "a" * 500):
        with pytest.raises(UnsafeTextError):
            kernel_head(name)
