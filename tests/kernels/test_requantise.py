"""The short form of what quantises gives the long form's numbers, on every kind of device."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, run_kernel

from clinfer_kernels.expr import Builder, Expr
from clinfer_kernels.pointwise import candidates, emit
from clinfer_kernels.requantise import requantised
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import PointwiseSpec
from clinfer_kernels.terms import Term

RNG = np.random.default_rng(5)


def numbers(scale: float) -> np.ndarray:
    """Ties between steps and their neighbours, numbers out of range, infinities, NaN."""
    ties = ((np.arange(-700, 700) / 2) * scale).astype(np.float32)
    near = [np.nextafter(ties, np.float32(sign * np.inf)) for sign in (-1, 1)]
    some = RNG.normal(0, 200 * scale, 4096).astype(np.float32)
    ends = np.float32([0, -0.0, 1e-42, 1e9, -1e9, 3e38, -3e38, np.inf, -np.inf, np.nan])
    return np.concatenate([ties, *near, some, ends])


def quantising(dtype: str, scale: float, zero: int, back: bool) -> Expr:
    """cast(clip(round(x / scale) + zero)) as passes/canonicalise/quantise.py writes it."""
    builder = Builder(["float32"])
    limits = np.iinfo(dtype)
    low, high = (builder.const(float(n), "float32") for n in (limits.min, limits.max))
    ratio = builder.op("div", 0, builder.const(float(np.float32(scale)), "float32"))
    moved = (Term(builder, builder.op("round", ratio)) + float(zero)).number
    above = builder.op("gt", moved, low, dtype="bool")
    raised = builder.op("where", above, moved, low, dtype="float32")
    inside = builder.op("min", raised, high)
    made = builder.op("cast", inside, dtype=dtype)
    if back:
        made = builder.op("cast", made, dtype="float32")
        made = builder.op("sub", made, builder.const(float(zero), "float32"))
    return builder.build(made)


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize("back", [False, True], ids=["stored", "read as floats"])
@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("uint8", 0.0371, 131), ("uint8", 6.0 / 255, 0), ("int8", 3.7e-5, -7), ("uint16", 1.3, 300)],
)
def test_every_number_is_quantised_as_onnx_says(
    cls: str, back: bool, dtype: str, scale: float, zero: int
) -> None:
    x = numbers(scale)
    limits = np.iinfo(dtype)
    with np.errstate(all="ignore"):
        wanted = np.clip(np.rint(x / np.float32(scale)) + zero, limits.min, limits.max)
    wanted = np.where(np.isnan(x), limits.min, wanted)
    result = "float32" if back else dtype
    expr = requantised(quantising(dtype, scale, zero, back))
    assert not {"round", "div", "min", "where"} & {line.op for line in expr.lines}
    spec = PointwiseSpec(expr, (dense("float32", x.shape),), (dense(result, x.shape),))
    kernel = emit(spec, candidates(spec, TARGETS[cls])[0], TARGETS[cls])
    (found,) = run_kernel(kernel, [x], [(x.shape, result)])
    np.testing.assert_array_equal(found, wanted - zero if back else wanted)


def test_a_zero_point_that_is_given_keeps_the_long_form() -> None:
    builder = Builder(["float32", "float32"])
    moved = Term(builder, builder.op("round", 0)) + Term(builder, 1)
    expr = builder.build(moved.at_least(0.0).at_most(255.0).cast("uint8").number)
    assert requantised(expr) == expr
