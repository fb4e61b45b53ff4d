"""`clinfer.preprocess`: the steps are a part of the model, wherever it goes; what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clinfer
from api.made import finished, one_node
from clinfer.preprocess import ColorFormat, PaddingMode, PrePostProcessor, ResizeAlgorithm

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
LINEAR = ResizeAlgorithm.RESIZE_LINEAR
F = TensorProto.FLOAT


PIXELS = np.random.default_rng(5).integers(0, 256, (4, 8, 6, 3)).astype(np.uint8)
"""Four pictures with their channels last."""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """scores [batch, 3] = the mean of each channel of image [batch, 3, 8, 6]."""
    folder = tmp_path_factory.mktemp("model")
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["scores"], "mean", axes=[2, 3], keepdims=0)],
        "means",
        [helper.make_tensor_value_info("image", F, ["batch", 3, 8, 6])],
        [helper.make_tensor_value_info("scores", F, ["batch", 3])],
    )
    onnx.save(finished(graph, opset=13), folder / "means.onnx")
    return folder / "means.onnx"


def prepared(model: clinfer.Model, scale: float = 255.0) -> clinfer.Model:
    """A model for pixels as they come, with scores of float64."""
    ppp = PrePostProcessor(model)
    ppp.input().tensor().set_element_type(np.uint8).set_layout("NHWC")
    ppp.input().preprocess().convert_element_type(np.float32).scale(scale)
    ppp.input().model().set_layout("NCHW")
    ppp.output("scores").tensor().set_element_type(np.float64)
    return ppp.build()


def test_the_example_reads_pixels(cpu, core):
    with np.load(DIGITS.with_suffix(".npz")) as file:
        pixels, labels = np.round(file["image"] * 255).astype(np.uint8), file["label"]
    scores = core.compile_model(prepared(core.read_model(DIGITS)), cpu)(pixels[:, 0, :, :, None])[0]
    assert np.mean(scores.argmax(axis=1) == labels) > 0.95


def test_the_model_is_changed_and_keeps_its_names(device, core, path):
    model = core.read_model(path)
    ports = model.inputs
    assert prepared(model) is model
    assert [(p.name, p.dtype, p.shape) for p in model.inputs] == [
        ("image", "uint8", ("batch", 8, 6, 3))
    ]
    assert ports != model.inputs and ports[0].name == "image"
    found = core.compile_model(model, device)(PIXELS)
    assert found["scores"].dtype == np.float64
    expected = (PIXELS / np.float32(255)).mean(axis=(1, 2))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_steps_are_in_the_key_and_in_blobs_pickles_and_files(cpu, tmp_path, path):
    core = clinfer.Core()
    core.set_property({"CACHE_DIR": tmp_path / "cache"})

    def compiled(scale: float | None) -> clinfer.CompiledModel:
        model = core.read_model(path)
        return core.compile_model(model if scale is None else prepared(model, scale), cpu)

    made = compiled(255.0)
    expected = made({"image": PIXELS})[0]
    again = [compiled(scale) for scale in (255.0, 128.0, None)]
    assert [m.get_property("LOADED_FROM_CACHE") for m in again] == [True, False, False]
    sent = pickle.loads(pickle.dumps(made))
    imported = core.import_model(made.export_model(), cpu)
    clinfer.save_model(prepared(core.read_model(path)), tmp_path / "m.onnx")
    for other in (again[0], sent, imported, core.compile_model(tmp_path / "m.onnx", cpu)):
        np.testing.assert_array_equal(other({"image": PIXELS})[0], expected)
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    np.testing.assert_allclose(session.run(None, {"image": PIXELS})[0], expected, rtol=1e-5)


def test_edits_before_and_after_are_kept_in_their_order(cpu, core, tmp_path, path):
    model = core.read_model(path)
    model.reshape([4, 3, 8, 6])
    model.add_outputs("image")
    prepared(model)
    ppp = PrePostProcessor(model)  # once more, around what is there
    ppp.input().tensor().set_element_type(np.int32)
    ppp.output("scores").postprocess().convert_layout([1, 0])
    ppp.build()
    model.reshape([2, 8, 6, 3])
    compiled = core.compile_model(model, cpu)
    given = PIXELS[:2].astype(np.int32)
    expected = compiled(given)
    assert expected[0].shape == (3, 2) and len(expected) == 2
    clinfer.save_model(model, tmp_path / "m.onnx")
    for other in (
        pickle.loads(pickle.dumps(compiled)),
        core.compile_model(tmp_path / "m.onnx", cpu),
    ):
        found = other(given)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def branching() -> onnx.ModelProto:
    """y = image if go else -image, in branches that read the input from outside."""
    branches = []
    for op in ("Identity", "Neg"):
        out = helper.make_tensor_value_info("b", F, None)
        branches.append(helper.make_graph([helper.make_node(op, ["image"], ["b"])], op, [], [out]))
    node = helper.make_node("If", ["go"], ["y"], then_branch=branches[0], else_branch=branches[1])
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    image = helper.make_tensor_value_info("image", F, [2, 3])
    graph = helper.make_graph(
        [node], "g", [go, image], [helper.make_tensor_value_info("y", F, [2, 3])]
    )
    return finished(graph, opset=13)


def test_an_input_that_branches_read_and_an_older_operator_set(cpu, core, tmp_path):
    model = core.read_model(branching())
    ppp = PrePostProcessor(model)
    ppp.input("image").tensor().set_element_type("i8")
    ppp.input("image").preprocess().convert_element_type().scale(2)
    ppp.output("y").postprocess().convert_element_type("i32")
    ppp.build()
    clinfer.save_model(model, tmp_path / "m.onnx")
    x = np.arange(6, dtype=np.int8).reshape(2, 3) * 4
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    for go in (True, False):
        given = {"go": np.array(go), "image": x}
        expected = x.astype(np.int32) // 2 * (1 if go else -1)
        np.testing.assert_array_equal(core.compile_model(model, cpu)(given)[0], expected)
        np.testing.assert_array_equal(session.run(None, given)[0], expected)


def small(shape: list | None = None) -> clinfer.Model:
    """y = relu(image) of a picture [1, 3, 8, 6]."""
    size = [1, 3, 8, 6] if shape is None else shape
    return clinfer.Core().read_model(one_node("Relu", {"image": (F, size)}, {"y": (F, None)}))


def test_nodes_of_ones_own(cpu, core):
    seen = []

    def doubled(port: clinfer.Port) -> onnx.GraphProto:
        seen.append((port.shape, port.dtype))
        two = helper.make_tensor("two", F, [], [2.0])
        return helper.make_graph(
            [helper.make_node("Mul", ["x", "two"], ["y"])],
            "doubled",
            [helper.make_tensor_value_info("x", F, None)],
            [helper.make_tensor_value_info("y", F, None)],
            [two],
        )

    def older(port: clinfer.Port) -> onnx.ModelProto:
        return finished(doubled(port), opset=13)

    model = small()
    ppp = PrePostProcessor(model)
    ppp.input().preprocess().custom(doubled).custom(older)
    ppp.output().postprocess().custom(doubled)
    x = np.ones((1, 3, 8, 6), np.float32)
    np.testing.assert_array_equal(core.compile_model(ppp.build(), cpu)(x)[0], 8 * x)
    assert seen == [((1, 3, 8, 6), "float32")] * 3


def test_an_input_of_texts_stays_beside_and_other_domains_are_imported(cpu, core, tmp_path):
    def gelu(port: clinfer.Port) -> onnx.GraphProto:
        made = one_node("Gelu", {"x": (F, None)}, {"y": (F, None)}, domain="com.microsoft")
        return made.graph

    texts = helper.make_tensor_value_info("texts", TensorProto.STRING, None)
    image = helper.make_tensor_value_info("image", F, [2])
    nodes = [helper.make_node("Identity", [n], [f"{n}2"]) for n in ("texts", "image")]
    outs = [helper.make_tensor_value_info("texts2", TensorProto.STRING, None)]
    outs.append(helper.make_tensor_value_info("image2", F, None))
    model = core.read_model(finished(helper.make_graph(nodes, "g", [texts, image], outs), 18))
    ppp = PrePostProcessor(model)
    ppp.input("image").tensor().set_element_type("u8")
    ppp.output("image2").postprocess().custom(gelu)
    clinfer.save_model(ppp.build(), tmp_path / "m.onnx")
    assert clinfer.read_model(tmp_path / "m.onnx").opsets["com.microsoft"] == 1
    given = {"texts": np.array(["a", "b"], object), "image": np.array([0, 200], np.uint8)}
    found = core.compile_model(model, cpu)(given)
    assert found[0].tolist() == ["a", "b"] and found[1].tolist() == [0, 200]


def test_dimensions_keep_names_and_limits(core):
    model = small(["n", 3, "h", None])
    model.reshape(["n", 3, (4, 9), -1])
    ppp = PrePostProcessor(model)
    ppp.input().tensor().set_layout("NHWC").set_element_type("f16")
    ppp.input().model().set_layout("NCHW")
    assert str(ppp.build().input().partial_shape) == "[?,4..9,?,3]"
    assert model.input().shape[0] == "n"


def test_shapes_may_change_before_the_steps_are_built():
    model = small([1, 3, None, None])
    ppp = PrePostProcessor(model)
    ppp.input().tensor().set_layout("NHWC").set_spatial_dynamic_shape()
    ppp.input().preprocess().resize(LINEAR)
    ppp.input().model().set_layout("NCHW")
    model.reshape([1, 3, 8, 6])
    model.add_outputs("image")
    assert ppp.build().outputs[0].shape == [1, 3, 8, 6]
    with pytest.raises(clinfer.InputError, match="another PrePostProcessor"):
        ppp.build()
    late = PrePostProcessor(model)
    other = PrePostProcessor(model)
    other.input().tensor().set_element_type("u8")
    other.build()
    with pytest.raises(clinfer.InputError, match="other inputs now"):
        late.build()


def test_what_is_not_asked_for_changes_nothing():
    model = small()
    before = model.shape_changes
    ppp = PrePostProcessor(model)
    assert str(ppp) == ""
    assert ppp.build().shape_changes == before == ""


# -- what it costs ---------------------------------------------------------------------------------


WEIGHTS = np.random.default_rng(2).standard_normal((8, 3, 3, 3)).astype(np.float32)


def convolution() -> onnx.ModelProto:
    """A padded convolution of image [1, 3, 8, 6], as pictures meet it first."""
    pads = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"], "conv", **pads)],
        "first",
        [helper.make_tensor_value_info("image", F, [1, 3, 8, 6])],
        [helper.make_tensor_value_info("y", F, None)],
        [onnx.numpy_helper.from_array(WEIGHTS, "w")],
    )
    return finished(graph)


def convolved(pixels: np.ndarray) -> np.ndarray:
    """The same of pixels [1, 8, 6, 3] in NumPy."""
    padded = np.pad(pixels[0], ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))[::2, ::2]
    return np.einsum("hwcij,mcij->mhw", windows, WEIGHTS)[None]


MEAN, SCALE = [120, 110, 100], [58, 57, 56]
NORMAL = f"i.preprocess().convert_element_type('f32').mean({MEAN}).scale({SCALE})"
TURNED = "i.tensor().set_element_type('u8').set_color_format(C.BGR)"
# Steps, whether the channels come last, and what the convolution gets.
FREE = [
    ("i.tensor().set_element_type('u8')", False, lambda x: x),
    (f"i.tensor().set_layout('NCHW'), {NORMAL}", False, lambda x: (x - MEAN) / SCALE),
    (
        f"{TURNED}, i.preprocess().convert_color(C.RGB), {NORMAL}, i.model().set_layout('NCHW')",
        True,
        lambda x: (x[..., ::-1] - MEAN) / SCALE,
    ),
]


def test_steps_before_a_convolution_take_no_kernel(device, core):
    plain = core.compile_model(core.read_model(convolution()), device)
    for said, last, made in FREE:
        model = core.read_model(convolution())
        ppp = PrePostProcessor(model)
        eval(said, {"i": ppp.input(), "C": ColorFormat})
        compiled = core.compile_model(ppp.build(), device)
        assert len(list(compiled.plan.launches)) <= len(list(plain.plan.launches)), said
        given = PIXELS[:1] if last else PIXELS[:1].transpose(0, 3, 1, 2)
        expected = convolved(made(PIXELS[:1].astype(np.float64)))
        np.testing.assert_allclose(compiled(given)[0], expected, rtol=1e-4, atol=1e-3)


# -- what is refused -------------------------------------------------------------------------------

REFUSED = {
    "PrePostProcessor('m.onnx')": "read_model",
    "ppp.input('nope')": "'nope'.*'image'",
    "ppp.output(7)": "7.*'y'",
    "i.model().set_layout('NCH')": "'image'.*3 dimensions.*4",
    "i.tensor().set_layout('NCHWD')": "'image'",
    "i.model().set_layout(5)": "text like",
    "i.preprocess().mean([1, 2, 3])": "'image', mean \\(1,2,3\\).*set_layout",
    "i.model().set_layout('NCHW'), i.tensor().set_layout('NCHW'), i.preprocess().mean([1, 2])": (
        "2 values for 3 channels"
    ),
    "i.preprocess().mean('a')": "mean: a number",
    "i.preprocess().scale([])": "scale: a value",
    "i.tensor().set_element_type('u8'), i.preprocess().mean(1)": "convert_element_type",
    "i.tensor().set_element_type('string')": "numbers",
    "i.tensor().set_element_type('f99')": "f99",
    "i.preprocess().resize(LINEAR)": "'image', resize.*set_layout",
    "i.preprocess().resize('linear')": "ResizeAlgorithm",
    "i.preprocess().resize(LINEAR, 0, 5)": "from 1",
    "i.preprocess().resize(LINEAR, 5)": "whole number",
    "i.tensor().set_shape([1, 3, 5, 6])": "'image'.*make.*takes.*resize",
    "i.tensor().set_shape([1, 3, 5, 6]).set_spatial_dynamic_shape()": "one of them",
    "i.tensor().set_spatial_dynamic_shape()": "'image'.*set_layout",
    "i.preprocess().convert_color(C.RGB)": "set_color_format",
    "i.tensor().set_color_format(C.NV12_TWO_PLANES)": "planes?|convert_color",
    "i.tensor().set_color_format(C.NV12_SINGLE_PLANE)": "'image'.*",
    "i.tensor().set_color_format(C.NV12_TWO_PLANES, ['y'])": "2 planes.*\\['y'\\]",
    "i.tensor().set_color_format(C.RGBX), i.preprocess().convert_color(C.GRAY)": "RGBX.*GRAY",
    "i.preprocess().crop(None, 3)": "crop: whole numbers expected, found None",
    "i.preprocess().crop([None], [[1]])": "crop: a whole number expected, found None",
    "i.preprocess().pad([0], 1, 0, PaddingMode.CONSTANT)": "pad: whole numbers expected, found 1",
    "i.preprocess().resize([])": "resize: a ResizeAlgorithm.*found \\[\\]",
    "i.preprocess().convert_color({})": "convert_color: a ColorFormat.*found {}",
    "i.tensor().set_color_format(C.NV12_TWO_PLANES, 2)": "names expected, found 2",
    "i.tensor().set_element_type(None)": "None is no element type",
    "i.preprocess().crop([0, 0], [1, 1])": "'image', Crop.*4 dimensions",
    "i.preprocess().pad([0], [0], 0, PaddingMode.CONSTANT)": "'image', pad.*4 dimensions",
    "i.preprocess().convert_layout([0, 0, 1, 2])": "'image'.*no order",
    "i.preprocess().convert_layout('NXY')": "'image'",
    "i.preprocess().reverse_channels()": "'image', reverse channels.*set_layout",
    "i.preprocess().custom(3)": "function",
    "i.preprocess().custom(lambda port: 3)": "'image', custom.*GraphProto.*int",
    "i.preprocess().custom(lambda port: port.nope)": "'image', custom.*AttributeError",
    "o.postprocess().convert_layout([0, 1])": "output 'y', convert layout.*4 dimensions",
    "o.tensor().set_layout('NHWC'), o.model().set_layout('NCXY')": "output 'y'.*different",
}


@pytest.mark.parametrize("statement", REFUSED)
def test_what_does_not_fit_is_said_with_its_place(statement):
    model = small()
    ports = model.inputs, model.outputs, model.shape_changes
    ppp = PrePostProcessor(model)
    words = {"C": ColorFormat, "LINEAR": LINEAR, "PaddingMode": PaddingMode, "ppp": ppp}
    words.update(i=ppp.input(), o=ppp.output(), PrePostProcessor=PrePostProcessor)
    with pytest.raises((clinfer.InputError, clinfer.ShapeError), match=f"(?s){REFUSED[statement]}"):
        eval(statement, words)
        ppp.build()
    assert (model.inputs, model.outputs, model.shape_changes) == ports
    str(ppp)


def test_a_size_of_the_model_that_is_open_is_asked_for():
    ppp = PrePostProcessor(small([1, 3, None, None]))
    ppp.input().tensor().set_layout("NCHW")
    ppp.input().preprocess().resize(LINEAR)
    with pytest.raises(clinfer.InputError, match=r"H is dynamic.*give the height and width"):
        ppp.build()


def test_a_wrong_picture_is_refused_at_the_run(cpu, core, path):
    model = prepared(core.read_model(path))
    with pytest.raises(
        clinfer.InputError, match=r"'image' has shape .*expected \[batch, 8, 6, 3\]"
    ):
        core.compile_model(model, cpu)(np.zeros((1, 9, 6, 3), np.uint8))


def test_nothing_of_it_is_loaded_before_it_is_used():
    code = (
        "import sys, clinfer; clinfer.Core()\n"
        "print([m for m in sys.modules if m.startswith('clinfer.preprocess')])\n"
        "clinfer.preprocess.PrePostProcessor"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
