"""`clinfer.preprocess` beside OpenVINO's: the same statements, the same numbers and texts.

Each way is an input and an output of one model, so that each side compiles once.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

openvino = pytest.importorskip("openvino")
peer = pytest.importorskip("openvino.preprocess")


class Way(NamedTuple):
    """Statements about input `i` and output `o`; what the model takes, what the user gives."""

    said: str
    model: list
    given: list[tuple[type, list[int]]]


U8, F32 = np.uint8, np.float32
U8_NHWC = "i.tensor().set_element_type(T.u8).set_layout(L('NHWC'))"
TO_NCHW = "; i.model().set_layout(L('NCHW'))"
FLOAT = "i.preprocess().convert_element_type(T.f32)"
RESIZE = "; i.preprocess().resize(A.RESIZE_{})" + TO_NCHW
PAD = f"i.tensor().set_shape([1, 2, 5, 4]); {FLOAT}.pad([0, 0, 2, 1], [0, 0, 1, 3], {{}}, P.{{}})"
COLOR = (
    "i.tensor().set_element_type(T.u8).set_color_format(C.{}{}); "
    "i.preprocess().convert_color(C.{})" + TO_NCHW
)
MODEL = [1, 3, 8, 6]
PICTURE, LARGE = [(U8, [1, 8, 6, 3])], [(U8, [1, 12, 10, 3])]
FLOATS, SMALL = [(F32, [1, 8, 6, 3])], [(F32, [1, 2, 5, 4])]
MATRIX = [(F32, [2, 5])]
ALGORITHMS = ("LINEAR", "CUBIC", "NEAREST", "BILINEAR_PILLOW", "BICUBIC_PILLOW")
CHANNELS = [
    "RGB-BGR",
    "BGR-RGB",
    "RGB-GRAY",
    "BGR-GRAY",
    "RGBX-RGB",
    "RGBX-BGR",
    "BGRX-BGR",
    "BGRX-RGB",
]
PLANES = {
    "NV12_SINGLE_PLANE": ("", [[1, 12, 6, 1]]),
    "I420_SINGLE_PLANE": ("", [[1, 12, 6, 1]]),
    "NV12_TWO_PLANES": (", ['y', 'uv']", [[1, 8, 6, 1], [1, 4, 3, 2]]),
    "I420_THREE_PLANES": (", ['a', 'b', 'c']", [[1, 8, 6, 1], [1, 4, 3, 1], [1, 4, 3, 1]]),
}


def resized(algorithm: str, dtype: str) -> Way:
    """A picture of integers with its channels last, or of floats with them first."""
    kind, shape, layout = {
        "u8": (U8, [1, 16, 5, 3], "NHWC"),
        "f32": (F32, [1, 3, 16, 5], "NCHW"),
    }[dtype]
    said = f"i.tensor().set_element_type(T.{dtype}).set_layout(L('{layout}')).set_shape({shape})"
    return Way(said + RESIZE.format(algorithm), [1, 3, 7, 9], [(kind, shape)])


def colored(color: str, to: str) -> Way:
    """A picture of another colour format."""
    names, shapes = PLANES.get(color, ("", [[1, 8, 6, 4 if "X" in color else 3]]))
    said, channels = COLOR.format(color, names, to), 1 if to == "GRAY" else 3
    return Way(said, [1, channels, 8, 6], [(U8, shape) for shape in shapes])


WAYS = {
    "hello classification": Way(
        f"{U8_NHWC}.set_shape([1, 12, 10, 3]){RESIZE.format('LINEAR')}; "
        "o.tensor().set_element_type(T.f32)",
        MODEL,
        LARGE,
    ),
    "mean and scale": Way(
        f"{U8_NHWC}; {FLOAT}.mean([123.675, 116.28, 103.53]).scale([58.4, 57.1, 57.4]){TO_NCHW}",
        MODEL,
        PICTURE,
    ),
    "one mean": Way(f"{U8_NHWC}; {FLOAT}.mean(127.5).scale(2){TO_NCHW}", MODEL, PICTURE),
    "order by numbers": Way("i.preprocess().convert_layout([0, 3, 1, 2])", MODEL, FLOATS),
    "to a layout": Way(
        "i.tensor().set_layout(L('NHWC')); i.preprocess().convert_layout(L('NCHW'))", MODEL, FLOATS
    ),
    "no batch": Way(f"i.tensor().set_layout(L('HWC')){TO_NCHW}", MODEL, [(F32, [8, 6, 3])]),
    "open layouts": Way(
        "i.tensor().set_layout(L('N...C')); i.model().set_layout(L('NC...'))", MODEL, FLOATS
    ),
    "half": Way("i.tensor().set_element_type(T.f16)", [2, 5], [(np.float16, [2, 5])]),
    "reversed": Way(f"{U8_NHWC}; i.preprocess().reverse_channels(){TO_NCHW}", MODEL, PICTURE),
    "cropped": Way(
        f"{U8_NHWC}.set_shape([1, 12, 10, 3]); "
        f"i.preprocess().crop([0, 2, 1, 0], [1, -2, 7, 3]){TO_NCHW}",
        MODEL,
        LARGE,
    ),
    "padded": Way(PAD.format(1.5, "CONSTANT"), [1, 2, 8, 8], SMALL),
    "reflected": Way(PAD.format(0, "REFLECT"), [1, 2, 8, 8], SMALL),
    "symmetric": Way(PAD.format(0, "SYMMETRIC"), [1, 2, 8, 8], SMALL),
    "given tensor": Way(
        "i.tensor().set_from(tensor(np.zeros((1, 12, 10, 3), np.uint8))).set_layout(L('NHWC'))"
        + RESIZE.format("NEAREST"),
        MODEL,
        LARGE,
    ),
    "any size": Way(
        f"{U8_NHWC}.set_spatial_dynamic_shape(){RESIZE.format('LINEAR')}",
        MODEL,
        [(U8, [1, 15, 11, 3])],
    ),
    "said size": Way(
        f"{U8_NHWC}.set_spatial_static_shape(5, 9){RESIZE.format('LINEAR')}",
        MODEL,
        [(U8, [1, 5, 9, 3])],
    ),
    "to a size": Way(
        f"{U8_NHWC}.set_shape([1, 12, 10, 3]); "
        f"i.preprocess().resize(A.RESIZE_CUBIC, 8, 6){TO_NCHW}",
        MODEL,
        LARGE,
    ),
    **{f"{a} of {kind}": resized(a, kind) for a in ALGORITHMS for kind in ("u8", "f32")},
    **{pair: colored(*pair.split("-")) for pair in CHANNELS},
    **{f"{color}-{to}": colored(color, to) for color in PLANES for to in ("RGB", "BGR", "GRAY")},
    "output type": Way("o.tensor().set_element_type(T.i32)", [2, 5], MATRIX),
    "output layout": Way(
        "o.model().set_layout(L('NCHW')); o.tensor().set_layout(L('NHWC'))",
        MODEL,
        [(F32, MODEL)],
    ),
    "output steps": Way(
        "o.postprocess().convert_layout([1, 0]).convert_element_type(T.f16)", [2, 5], MATRIX
    ),
}
NAMES = list(WAYS)


def model() -> onnx.ModelProto:
    """An input 'i0', 'i1' ... and an output 'o0', 'o1' ... for each way."""
    nodes, inputs, outputs = [], [], []
    for number, way in enumerate(WAYS.values()):
        nodes.append(helper.make_node("Identity", [f"i{number}"], [f"o{number}"]))
        inputs.append(helper.make_tensor_value_info(f"i{number}", TensorProto.FLOAT, way.model))
        outputs.append(helper.make_tensor_value_info(f"o{number}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "ways", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def prepared(ov: ModuleType, pp: ModuleType) -> tuple[object, list[str]]:
    """The model with all ways built in, and the text of each."""
    read = ov.Core().read_model(model().SerializeToString())
    ppp = pp.PrePostProcessor(read)
    words = {
        "T": ov.Type,
        "L": ov.Layout,
        "A": pp.ResizeAlgorithm,
        "C": pp.ColorFormat,
        "P": pp.PaddingMode,
        "tensor": ov.Tensor,
        "np": np,
    }
    for number, way in enumerate(WAYS.values()):
        exec(way.said, {**words, "i": ppp.input(number), "o": ppp.output(number)})
    text = str(ppp)
    return ppp.build(), text


def given() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    made = []
    for way in WAYS.values():
        for dtype, shape in way.given:
            values = generator.integers(0, 256, shape)
            made.append(values.astype(dtype) if dtype is U8 else (values / 7).astype(dtype))
    return made


@pytest.fixture(scope="module")
def sides() -> dict[str, tuple[str, list[np.ndarray]]]:
    """What each side says and computes."""
    made = {}
    for name in ("openvino", "clinfer"):
        ov, pp = importlib.import_module(name), importlib.import_module(f"{name}.preprocess")
        built, text = prepared(ov, pp)
        compiled = ov.Core().compile_model(built, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        result = compiled(dict(enumerate(given())))
        made[name] = text, [result[k] for k in range(len(WAYS))]
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_way_makes_the_same(name, sides):
    index = NAMES.index(name)
    theirs, ours = (sides[side][1][index] for side in ("openvino", "clinfer"))
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    whole = WAYS[name].given[0][0] is U8 and "mean" not in WAYS[name].said
    assert off.max() <= (1 if whole else 1e-5 * max(1, np.abs(theirs).max())), off.max()


def test_the_texts_are_the_same(sides):
    assert sides["clinfer"][0].splitlines() == sides["openvino"][0].splitlines()


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_what_openvino_names_is_there():
    ours = importlib.import_module("clinfer.preprocess")
    assert public(peer) - public(ours) == {"get_version"}
    there = [name for name in public(peer) if isinstance(getattr(peer, name), type)]
    for name in there:
        lacking = public(getattr(peer, name)) - public(getattr(ours, name))
        assert lacking <= {"name", "value"}, name  # of an enumeration's members
