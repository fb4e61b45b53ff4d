"""Reading: what files may hold, and what is said about those that are no models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_helpers import model, proto, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from clinfer.errors import ClinferError, ModelError, ShapeError
from clinfer.graph.reader import read
from clinfer.passes.fold import fold

RELU = "m (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"


def test_path_bytes_and_proto_give_the_same(tmp_path: Path) -> None:
    source = proto(RELU)
    path = tmp_path / "m.onnx"
    onnx.save(source, path)
    models = [read(path), read(str(path)), read(path.read_bytes()), read(source)]
    assert [m.source for m in models[:2]] == [path, path]
    ports = [[(p.name, p.shape, p.dtype) for p in (*m.inputs, *m.outputs)] for m in models]
    assert all(found == ports[0] for found in ports)
    assert models[0].inputs[0].shape == ("N", 4)


def test_reading_leaves_the_proto_alone() -> None:
    source = proto("m (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }")
    before = source.SerializeToString(deterministic=True)
    read(source)
    assert source.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 this is a zip archive", "not an ONNX model"),
        (b"\x08", "not an ONNX model"),
        (b"\x08\x07", "not an ONNX model"),
        (proto(RELU).SerializeToString()[:-9], "truncated"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=expected) as error:
        read(path)
    assert str(path) in str(error.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.onnx.*does not exist"):
        read(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="folder"):
        read(tmp_path)
    with pytest.raises(ModelError, match="path, bytes or an onnx"):
        read(42)  # type: ignore[arg-type]


@pytest.mark.parametrize(("opset", "expected"), [(99, "newer than"), (4, "too old")])
def test_operator_sets_out_of_range(opset: int, expected: str) -> None:
    source = proto(RELU)
    source.opset_import[0].version = opset
    with pytest.raises(ModelError, match=expected):
        read(source)


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training"])
def test_newer_operator_sets_of_other_domains_are_refused_by_name(domain: str) -> None:
    """Whether they are used or not, as ONNX Runtime does; of unknown domains nothing is known."""
    source = proto(RELU)
    source.opset_import.add(domain="my.domain", version=99)
    source.opset_import.add(domain=domain, version=1)
    read(source)
    source.opset_import[-1].version = 99
    with pytest.raises(ModelError, match=rf"version 99 of the operator set '{domain}' is newer"):
        read(source)


def test_unknown_operators_are_named() -> None:
    source = proto("m (float[4] x) => (float[4] y) { y = my.domain.Fancy(x) }")
    source.opset_import.add(domain="my.domain", version=1)
    with pytest.raises(ModelError, match=r"Fancy.*custom domain 'my.domain'"):
        read(source)
    with pytest.raises(ModelError, match="imports no version of the operator set 'other'"):
        read(proto("m (float[4] x) => (float[4] y) { y = other.Fancy(x) }"))
    with pytest.raises(ModelError, match=r"'Gelu' is not in version 17.*from version 20"):
        read(proto("m (float[4] x) => (float[4] y) { y = Gelu(x) }"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m (float[4] x) => () { y = Relu(x) }", "no outputs"),
        ("m (float[4] x) => (float[4] y) { y = Relu(z) }", "reads 'z'"),
        ("m (float[4] x) => (float[4] z) { y = Relu(x) }", "output 'z' is defined by no"),
        ("m (float[4] x) => (float[4] y) { y = Relu(x) y = Abs(x) }", "defined already"),
        ("m (float[4] x) => (float[4] y) { y = Add(x, z) z = Abs(y) }", "cycle"),
        ("m (float[4] x, float[4] x) => (float[4] y) { y = Relu(x) }", "two inputs"),
    ],
)
def test_damaged_graphs(text: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        model(text)


def test_shapes_that_contradict_each_other_name_the_node() -> None:
    with pytest.raises(ShapeError, match=r"MatMul.*inner sizes.*3 and 4"):
        model("m (float[2, 3] x, float[4, 5] w) => (float[2, 5] y) { y = MatMul(x, w) }")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("y = Conv(x)", r"Conv \"y\": 2 to 3 inputs expected, found 1"),
        ("y = Relu(x, x)", "1 to 1 inputs expected, found 2"),
        ("y = DepthToSpace(x)", "must have the attribute 'blocksize'"),
        (
            "y = DepthToSpace<blocksize = 2>(x)",
            r"DepthToSpace.*4 dimensions expected, found 3",
        ),
        ("y = Concat<axis = 7>(x, x)", "axis 7 expected in"),
        ("y = Transpose<perm = [0, 0, 1]>(x)", "no permutation"),
        ("y = Unsqueeze(x, i)", "name a dimension twice"),
        ("y = Reshape(x, i)", "numbers of elements"),
    ],
)
def test_nodes_that_do_not_fit_are_named(node: str, expected: str) -> None:
    text = f"m (float[2, 3, 4] x) => (float[A, B, C] y) <int64[2] i = {{1, 1}}> {{ {node} }}"
    with pytest.raises((ModelError, ShapeError), match=expected):
        model(text)


def test_nodes_out_of_order_are_put_in_order() -> None:
    made = model("m (float[4] x) => (float[4] y) { y = Relu(z) z = Abs(x) }")
    assert [n.op for n in made.graph().nodes] == ["Abs", "Relu"]


def test_an_initialiser_that_is_also_an_input_is_a_constant() -> None:
    source = proto(
        "m (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> {y = Add(x, w)}"
    )
    made = read(source)
    assert [p.name for p in made.inputs] == ["x"]
    (result,) = run(made.graph(), [np.float32([1, 1])])
    assert result.tolist() == [2, 3]


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initialisers_are_made_dense(flat: bool) -> None:
    source = proto("m (float[2, 3] x) => (float[2, 3] y) { y = Add(x, w) }")
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [5, 7])
    where = [1, 5] if flat else [0, 1, 1, 2]
    indices = helper.make_tensor("i", TensorProto.INT64, [2] if flat else [2, 2], where)
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    (result,) = run(read(source).graph(), [np.zeros((2, 3), np.float32)])
    assert result.tolist() == [[0, 5, 0], [0, 0, 7]]


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4", "uint4", "float16"])
def test_narrow_types_keep_their_values(kind: str) -> None:
    from clinfer.dtypes import BY_NAME, to_numpy

    content = np.array([1, 2, 3, 4, 5], np.float32).astype(to_numpy(kind))
    tensor = numpy_helper.from_array(content, "w")
    source = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)],
            "m",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5])],
            [tensor],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    assert tensor.data_type == BY_NAME[kind].onnx
    (result,) = run(read(source).graph(), [])
    assert result.tolist() == [1, 2, 3, 4, 5]


def test_subgraphs_name_what_they_capture() -> None:
    text = """m (bool c, float[N] x, float[N] w) => (float[N] y) {
        d = Abs(w)
        y = If(c) <then_branch = t () => (float[N] a) { a = Add(x, d) },
                   else_branch = e () => (float[N] b) { b = Sub(x, d) }>
    }"""
    graph = model(text).graph()
    branch = graph.nodes[-1]
    assert branch.captures == 2
    assert [v.name for v in branch.inputs if v] == ["c", "x", "d"]
    x, w = np.float32([1, 2]), np.float32([-3, 4])
    assert run(graph, [np.array(True), x, w])[0].tolist() == [4, 6]
    assert run(graph, [np.array(False), x, w])[0].tolist() == [-2, -2]


def test_metadata_is_kept() -> None:
    source = proto(RELU)
    source.producer_name = "someone"
    source.metadata_props.add(key="labels", value="a,b")
    assert read(source).metadata == {"producer_name": "someone", "labels": "a,b"}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """Whatever bytes change, the answer is a model or an error of ours."""
    text = """m (float[N, 4] x) => (float[N, 2] y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
        s = Shape(x) r = Reshape(x, s) a = Softmax(r) y = MatMul(a, w) }"""
    damaged = bytearray(proto(text).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        fold(read(bytes(damaged)).graph())
    except ClinferError as error:
        assert str(error)


@pytest.mark.parametrize("op", ["y = Expand(x, s)", "y = Reshape(x, s)", "y = ConstantOfShape(s)"])
def test_a_rank_beyond_all_bounds_is_refused(op: str) -> None:
    text = f"m (float[1] x, int64[4611686018427387904] s) => (float y) {{ {op} }}"
    with pytest.raises(ClinferError, match=r"dimensions|elements"):
        model(text)


def relu(domain: str, imports: list[tuple[str, int]], ir: int = 8) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], domain=domain)], "g", [x], [y]
    )
    opsets = [helper.make_opsetid(*item) for item in imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("imports", [[("", 17)], [("ai.onnx", 17)], [("ai.onnx.ml", 3)]])
@pytest.mark.parametrize("ir", [0, 1, 3, onnx.IR_VERSION])
def test_ways_of_naming_onnxs_own_operator_set(
    domain: str, imports: list[tuple[str, int]], ir: int
) -> None:
    """One that is not imported at all is the newest, as ONNX Runtime has it."""
    (node,) = read(relu(domain, imports, ir)).graph().nodes
    assert node.kind == "Relu"


def test_a_newer_file_format_is_refused() -> None:
    with pytest.raises(ModelError, match=r"version 99 of the file format .* expected 1 to \d+"):
        read(relu("", [("", 17)], ir=99))


def test_an_attribute_that_is_there_twice_is_refused() -> None:
    source = proto("m (float[N] x) => (float[N] y) { y = LeakyRelu<alpha = 0.1>(x) }")
    source.graph.node[0].attribute.append(source.graph.node[0].attribute[0])
    with pytest.raises(ModelError, match=r'LeakyRelu "y": .*twice'):
        read(source)


def test_empty_lists_of_a_window_are_its_defaults() -> None:
    text = """m (float[1, 1, 4, 4] x, float[1, 1, 2, 2] w) => (float y) {
        y = Conv<strides = [1, 1], pads = [0, 0, 0, 0]>(x, w) }"""
    source = proto(text)
    for attribute in source.graph.node[0].attribute:
        del attribute.ints[:]
    assert read(source).graph().outputs[0].shape == (1, 1, 3, 3)


def test_an_input_that_an_operator_needs_is_not_left_empty() -> None:
    source = proto("m (float[N] x) => (float[N] y) { y = Equal(x, x) }")
    source.graph.node[0].input[1] = ""
    with pytest.raises(ModelError, match=r'Equal "y": input 1 must be there'):
        read(source)
