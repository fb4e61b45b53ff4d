"""A stored draft gives the plan that lowering gives, its weights read from the model's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clinfer.cache.layers import Layers
from clinfer.cache.store import Store
from clinfer.errors import BlobError
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.content import Draft
from clinfer.lowering.draft_io import dump_draft, load_draft
from clinfer.lowering.lower import lower
from clinfer.lowering.plan_dump import dump
from clinfer.models import Models
from clinfer.passes.pipeline import optimise
from clinfer.plugins.base import Files
from clinfer.plugins.plans import places
from clinfer_kernels.spec import Target

RANDOM = np.random.default_rng(5)
TARGET = Target(cls="cpu", dialect="pocl", vector_width=16, local_mem=1 << 20)


def drafted(path: Path, tmp_path: Path, target: Target = TARGET) -> tuple[Draft, Files]:
    """The draft of a model, and the files that its weights lie in."""
    source = Models().source(path, Layers(Store(tmp_path / "store")))
    assert source.files is not None
    graph = source.read().graph()
    optimise(graph, cls=target.cls)
    return lower(graph, target, KernelChoice()), source.files


def stored(draft: Draft, files: Files) -> tuple[dict[str, Any], memoryview]:
    """What is stored of a draft: the document, and what lies in no file."""
    dumped = dump_draft(draft, places(files))
    assert dumped is not None
    return json.loads(dumped[0]), memoryview(b"".join(chunk.tobytes() for chunk in dumped[1]))


def read(document: dict[str, Any], kept: memoryview, files: Files) -> Draft:
    return load_draft(json.dumps(document).encode(), kept, files.content)


def packed(document: dict[str, Any]) -> list[Any]:
    """The one constant that is packed."""
    (found,) = [c for c in document["constants"] if c[0] == "packed"]
    return found


def write(
    path: Path, op: str, shape: tuple[int, ...], weight: np.ndarray, attrs: dict[str, Any]
) -> Path:
    """One node with a constant weight, its bytes in the file."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(op, ["x", "w"], ["y"], **attrs)
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def weights(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES = {
    "matrix": ("MatMul", (5, 40), weights(40, 70), {}),
    "turned": ("Gemm", (5, 64), weights(300, 64), {"transB": 1}),
    "convolution": ("Conv", (1, 24, 9, 9), weights(40, 24, 3, 3), {"strides": [2, 2]}),
    "groups": ("Conv", (1, 24, 9, 9), weights(48, 12, 3, 3), {"group": 2}),
    "transposed": ("ConvTranspose", (1, 24, 9, 9), weights(24, 40, 4, 4), {"strides": [2, 2]}),
    "depthwise": ("Conv", (1, 256, 9, 9), weights(256, 1, 3, 3), {"group": 256}),
    "winograd": ("Conv", (1, 64, 28, 28), weights(64, 64, 3, 3), {"pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("case", CASES)
def test_constants_are_made_as_the_first_time(case: str, tmp_path: Path) -> None:
    op, shape, weight, attrs = CASES[case]
    path = write(tmp_path / "m.onnx", op, shape, weight, attrs)
    draft, files = drafted(path, tmp_path)
    _require_same(draft, files, weight.nbytes // 4)


def test_weights_for_either_of_two_launches_are_packed_as_the_first_time(tmp_path: Path) -> None:
    """Winograd's and the direct convolution of a GPU, between which a free batch chooses."""
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["y"]),
        helper.make_node("Conv", ["y", "w"], ["z"]),
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 28, 28)),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
    ]
    constants = {"v": weights(128, 3, 1, 1), "w": weights(128, 128, 3, 3)}
    made = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], made)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    draft, files = drafted(path, tmp_path, Target("gpu", compute_units=1, dialect=""))
    assert "WinogradPanels" in str(stored(draft, files)[0]["constants"])
    _require_same(draft, files, 1 << 17)


def _require_same(draft: Draft, files: Files, most: int) -> None:
    """The plan of a draft that was stored, with no more than `most` bytes, is the draft's own."""
    document, kept = stored(draft, files)
    assert kept.nbytes < most
    found = read(document, kept, files).finish()
    expected = draft.finish()
    (text, arrays), (as_text, as_arrays) = dump(found), dump(expected)
    assert text == as_text
    np.testing.assert_array_equal(np.concatenate(arrays), np.concatenate(as_arrays))


@pytest.mark.parametrize(
    "packing",
    [["Nothing", 1], ["MatrixPanels", "float32"], ["MatrixPanels", "float32", None], []],
)
def test_another_packing_is_refused(packing: list[object], tmp_path: Path) -> None:
    draft, files = drafted(write(tmp_path / "m.onnx", *CASES["matrix"]), tmp_path)
    document, kept = stored(draft, files)
    packed(document)[1] = packing
    with pytest.raises(BlobError):
        read(document, kept, files)


def test_a_window_beyond_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", *CASES["turned"])
    draft, files = drafted(path, tmp_path)
    document, kept = stored(draft, files)
    window = packed(document)[2]
    assert window[0] == "window"
    window[5] = path.stat().st_size - 8
    with pytest.raises(BlobError):
        read(document, kept, files)
