"""Casts inside an expression: narrow floats are rounded, to nearest even, wherever they appear."""

from __future__ import annotations

from platform import machine

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, numpy_dtype, run_kernel
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from clinfer.graph import numpy_ops
from clinfer_kernels.expr import Builder
from clinfer_kernels.pointwise import candidates, emit
from clinfer_kernels.simplify import simplify
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.types import rounded

NARROW = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
RNG = np.random.default_rng(11)


def special() -> np.ndarray:
    """Ties, subnormals, the ends of both ranges, and bits at random."""
    halves = np.arange(0, 0x7C00, 61, np.uint16).view(np.float16).astype(np.float64)
    ties = np.concatenate([halves, (halves[1:] + halves[:-1]) / 2])
    edges = [65504, 65519.996, 65520, 65536, 2**-24, 2**-25, 2**-25 * 1.0000002, 6e-8, 3.4e38]
    some = RNG.integers(0, 1 << 32, 500, np.uint32).view(np.float32).astype(np.float64)
    fine = [1 + 2**-11 + 2**-40, 1 + 2**-9 + 2**-50, 1 + 2**-11 - 2**-40, np.inf, np.nan, 0.1]
    found = np.concatenate([ties, edges, some, fine])
    return np.concatenate([found, -found])


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_what_becomes_narrow_and_wide_again_is_rounded(cls: str, source: str) -> None:
    with np.errstate(all="ignore"):
        x = special().astype(source)
    builder = Builder([source])
    outputs = [
        builder.op("cast", builder.op("cast", 0, dtype=narrow), dtype=source) for narrow in NARROW
    ]
    expr = simplify(builder.build(*outputs))
    shape = x.shape
    outs = tuple(dense(source, shape) for _ in NARROW)
    spec = PointwiseSpec(expr, (dense(source, shape),), outs)
    target = TARGETS[cls]
    kernel = emit(spec, candidates(spec, target)[0], target)
    found = run_kernel(kernel, [x], [(shape, source)] * len(NARROW))
    for have, dtype in zip(found, NARROW.values(), strict=True):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(have, x.astype(dtype).astype(source))


@pytest.mark.parametrize("dtype", NARROW)
def test_a_constant_is_rounded_as_the_numbers_are(dtype: str) -> None:
    for value in (0.1, 65519.9, 65520.0, 1e-8, -3.3, 1e39):
        with np.errstate(all="ignore"):
            assert rounded(value, dtype) == float(np.float32(value).astype(numpy_dtype(dtype)))


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
BEYOND = [np.nan, np.inf, 1e30, 300.5, 70000, 3e9, 2**31, 2**31 + 256, 2**32, 1e19, 2**63, 2**64]
BEYOND += [0.5, 1.0, 255.5, 256, 128.5, 1e-9, 2**31 - 128, 2**63 - 2**40]


def as_x86(x: np.ndarray, dtype: str) -> np.ndarray:
    """ONNX Runtime's Cast."""
    node = helper.make_node("Cast", ["x"], ["y"], to=getattr(TensorProto, dtype.upper()))
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    given = [helper.make_tensor_value_info("x", kind, x.shape)]
    graph = helper.make_graph([node], "cast", given, [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    made = InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    return np.asarray(made)


@pytest.mark.skipif(machine() not in ("x86_64", "AMD64"), reason="the reference is x86's")
@pytest.mark.parametrize("source", ["float32", "float64"])
def test_floats_that_do_not_fit_an_integer_are_the_same_everywhere(source: str) -> None:
    x = np.array([*BEYOND, *(-v for v in BEYOND)]).astype(source)
    builder = Builder([source])
    expr = builder.build(*(builder.op("cast", 0, dtype=dtype) for dtype in INTEGERS))
    outs = tuple(dense(dtype, x.shape) for dtype in INTEGERS)
    spec = PointwiseSpec(expr, (dense(source, x.shape),), outs)
    shapes = [(x.shape, dtype) for dtype in INTEGERS]
    tiles = ((t, tile) for t in TARGETS.values() for tile in candidates(spec, t))
    made = [run_kernel(emit(spec, tile, target), [x], shapes) for target, tile in tiles]
    for number, dtype in enumerate(INTEGERS):
        wanted = as_x86(x, dtype)
        for found in made:
            np.testing.assert_array_equal(found[number], wanted)
        attrs = {"to": getattr(TensorProto, dtype.upper())}
        np.testing.assert_array_equal(numpy_ops.TABLE["Cast"](attrs, [x])[0], wanted)
