"""Long contents are cut out of a model's bytes and found again; all else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_helpers import proto, run
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from clinfer import mapping
from clinfer.errors import ModelError
from clinfer.graph import cutting
from clinfer.graph.reader import read

TEXT = "m (float[2, 3] x) => (float[2, 3] y) { y = Add(x, w) }"


def _cut(data: bytes) -> cutting.Structure:
    return cutting.cut(np.frombuffer(data, np.uint8))


def _model(sizes: list[int], constants: list[int]) -> onnx.ModelProto:
    """Initialisers and Constant nodes of so many floats."""
    random = np.random.default_rng(0)
    arrays = [random.random(n, np.float32) for n in (*sizes, *constants)]
    made = [numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(arrays)]
    nodes = [
        helper.make_node("Constant", [], [f"c{i}"], value=tensor)
        for i, tensor in enumerate(made[len(sizes) :])
    ]
    graph = helper.make_graph(nodes, "g", [], [], made[: len(sizes)])
    return helper.make_model(graph)


LENGTHS = st.lists(st.sampled_from([0, 1, 6, 1023, 1024, 1025, 40000]), max_size=4)


@given(LENGTHS, LENGTHS)
def test_what_is_cut_out_is_what_was_there(sizes: list[int], constants: list[int]) -> None:
    whole = _model(sizes, constants)
    structure = _cut(whole.SerializeToString())
    found = onnx.ModelProto.FromString(structure.encoded)
    tensors = [*found.graph.initializer, *(n.attribute[0].t for n in found.graph.node)]
    long = [n for n in (*sizes, *constants) if 4 * n >= cutting.CUT_FROM]
    assert len(structure.contents) == len(long)
    for tensor in tensors:
        content = structure.contents.get(tensor.raw_data)
        if content is not None:
            tensor.raw_data = content.tobytes()
    assert found == whole
    assert len(structure.encoded) < (4096 + 64) * len(tensors) + 200


@given(st.binary(max_size=200), st.data())
def test_damaged_bytes_are_left_to_the_parser(noise: bytes, data: st.DataObject) -> None:
    whole = _model([2000, 3], [1500]).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + noise + whole[at + len(noise) :]
    try:
        read(damaged)
    except ModelError:
        return


def test_a_token_of_another_model_stands_for_nothing() -> None:
    source = proto(TEXT)
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    source.graph.initializer.append(tensor)
    other = numpy_helper.from_array(np.zeros(4096, np.float32), "other")
    source.graph.initializer.append(other)
    again = _cut(source.SerializeToString())
    assert again.contents.keys().isdisjoint(_cut(source.SerializeToString()).contents)
    assert tensor.raw_data not in again.contents


def test_contents_of_a_wrong_size_are_told() -> None:
    source = _model([2000], [])
    source.graph.initializer[0].dims[0] = 1999
    source.graph.output.append(helper.make_tensor_value_info("w0", 1, [1999]))
    with pytest.raises(ModelError, match=r"tensor 'w0'.*another size"):
        read(source.SerializeToString())


def test_a_mapped_model_may_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MAP_FROM", 1)
    monkeypatch.setattr(mapping, "may_map", lambda device: True)
    weights = np.random.default_rng(0).random((2000, 3), np.float32)
    source = proto("m (float[2000, 3] x) => (float[2000, 3] y) { y = Add(x, w) }")
    source.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    path = tmp_path / "m.onnx"
    onnx.save(source, path)
    model = read(path)
    graph = model.graph()
    content = graph.nodes[0].required(1).const
    assert mapping.is_mapped(content)
    mapping.drop_pages(content[100:200, 1:])
    assert np.array_equal(run(graph, [np.zeros_like(weights)])[0], weights)
    onnx.save(proto(TEXT), tmp_path / "other.onnx")
    (tmp_path / "other.onnx").replace(path)
    with pytest.raises(ModelError, match=r"m.onnx' has changed since the model was read"):
        model.graph()


def test_only_mapped_files_lose_pages() -> None:
    own = np.arange(100000)
    mapping.drop_pages(own)
    assert own[-1] == 99999
    assert not mapping.is_mapped(own)
