"""Interpolation kernels against onnx's reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.families import emit_best
from clinfer_kernels.spec import Tensor, dense, row_major
from clinfer_kernels.specs import ResizeSpec
from harness import TARGETS, run_kernel
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

RNG = np.random.default_rng(0)
MODES = [
    ("nearest", "asymmetric", "floor"),
    ("nearest", "half_pixel", "round_prefer_floor"),
    ("nearest", "half_pixel", "round_prefer_ceil"),
    ("nearest", "align_corners", "ceil"),
    ("linear", "half_pixel", "floor"),
    ("linear", "pytorch_half_pixel", "floor"),
    ("linear", "align_corners", "floor"),
    ("linear", "half_pixel_symmetric", "floor"),
    ("cubic", "half_pixel", "floor"),
    ("cubic", "asymmetric", "floor"),
]


def reference(x, shape, axes, mode, coordinates, rounding, scales=None, **more):
    """ONNX's result for output sizes, or for scales."""
    inputs = ["x", "", "scales"] if scales else ["x", "", "", "sizes"]
    node = helper.make_node(
        "Resize",
        inputs,
        ["y"],
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
        axes=list(axes),
        **more,
    )
    name = inputs[-1]
    kind = TensorProto.FLOAT if scales else TensorProto.INT64
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
            helper.make_tensor_value_info(name, kind, None),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    value = np.array(scales, np.float32) if scales else np.array([shape[a] for a in axes])
    return ReferenceEvaluator(model).run(None, {"x": x, name: value})[0]


def spec_of(x, out, axes, mode, coordinates, rounding, scales=None, epilogue=None, **more):
    given = tuple(scales) if scales else (None,) * len(axes)
    return ResizeSpec(
        mode,
        coordinates,
        rounding,
        tuple(axes),
        given,
        more.get("cubic_coeff_a", -0.75),
        bool(more.get("exclude_outside", 0)),
        0.0,
        epilogue or identity(x.dtype),
        (x,),
        (out,),
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize(("mode", "coordinates", "rounding"), MODES)
def test_every_mode_up_and_down(mode, coordinates, rounding, target):
    x = RNG.standard_normal((2, 5, 7, 3)).astype(np.float32)
    batch = sym("batch")
    for size in ((9, 4), (2, 14)):
        shape = (2, *size, 3)
        expected = reference(x, shape, (1, 2), mode, coordinates, rounding)
        spec = spec_of(
            dense("float32", (batch, 5, 7, 3)),
            dense("float32", (batch, *size, 3)),
            (1, 2),
            mode,
            coordinates,
            rounding,
        )
        kernel = emit_best(spec, target)
        found = run_kernel(kernel, [x], [(shape, "float32")], symbols={"batch": 2})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_innermost_axis_scales_and_excluded_taps(target):
    x = RNG.standard_normal((2, 3, 6)).astype(np.float32)
    more = {"cubic_coeff_a": -0.5, "exclude_outside": 1}
    expected = reference(x, None, (2,), "cubic", "half_pixel", "floor", [1.7], **more)
    spec = spec_of(
        dense("float32", x.shape),
        dense("float32", expected.shape),
        (2,),
        "cubic",
        "half_pixel",
        "floor",
        [1.7],
        **more,
    )
    found = run_kernel(emit_best(spec, target), [x], [(expected.shape, "float32")])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_a_transposed_input_and_an_epilogue(target):
    stored = RNG.standard_normal((1, 4, 5, 6)).astype(np.float32)
    strides = row_major(stored.shape)
    view = Tensor("float32", (1, 5, 6, 4), tuple(strides[p] for p in (0, 2, 3, 1)))
    x = stored.transpose(0, 2, 3, 1)
    shape = (1, 10, 12, 4)
    expected = reference(x, shape, (1, 2), "linear", "half_pixel", "floor") * 2
    builder = Builder(["float32"])
    doubled = builder.build(builder.op("mul", 0, builder.const(2.0, "float32")))
    spec = spec_of(
        view,
        dense("float32", shape),
        (1, 2),
        "linear",
        "half_pixel",
        "floor",
        epilogue=doubled,
    )
    found = run_kernel(emit_best(spec, target), [stored], [(shape, "float32")])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
