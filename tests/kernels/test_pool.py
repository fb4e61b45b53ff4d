"""The pooling family against ONNX Runtime, and onnx's reference where that has more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from harness import TARGETS, run_kernel, view_of
from windows import channels_first, channels_last, run_node

from clinfer_kernels import pool
from clinfer_kernels.dims import Dim, floordiv, sym
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.spec import Target, Tensor, dense
from clinfer_kernels.specs import PoolSpec
from clinfer_kernels.terms import Term

Array = np.ndarray[Any, Any]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
rng = np.random.default_rng(5)


@dataclass(frozen=True)
class Window:
    """A pooling of [n, *size, c]; attributes as in ONNX, all written out."""

    kind: str
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...] = (1, 1)
    c: int = 11
    n: int = 1
    ceil: bool = False
    include_pad: bool = False
    p: int = 2

    def attributes(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.strides}
        attrs |= {"pads": self.pads, "dilations": self.dilations, "ceil_mode": int(self.ceil)}
        if self.kind == "average":
            attrs["count_include_pad"] = int(self.include_pad)
        if self.kind == "lp":
            attrs["p"] = self.p
        return attrs

    def reference(self, x: Array, **attrs: Any) -> list[Array]:
        op = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}[self.kind]
        count = 2 if "storage_order" in attrs else 1
        all_attrs = {**self.attributes(), **attrs}
        made = run_node(op, [channels_first(x)], all_attrs, count, opset=19)
        return [channels_last(y) for y in made]

    def out_size(self) -> tuple[int, ...]:
        empty = np.zeros((1, *self.size, 1), np.float32)
        return self.reference(empty)[0].shape[1:-1]

    def spec(
        self,
        x: Tensor,
        outs: tuple[Tensor, ...],
        epilogue: Expr | None = None,
        operands: tuple[Tensor, ...] = (),
        column_major: bool = False,
        order: Literal["any", "rows", "columns"] = "any",
    ) -> PoolSpec:
        return PoolSpec(
            kind=self.kind,
            kernel=self.kernel,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            count_include_pad=self.include_pad,
            epilogue=epilogue or identity(x.dtype),
            ins=(x, *operands),
            outs=outs,
            p=self.p,
            column_major=column_major,
            order=order,
        )


def data(window: Window) -> Array:
    return rng.standard_normal((window.n, *window.size, window.c)).astype(np.float32)


def run(window: Window, target: Target, x: Array, spec_x: Tensor, base: Array) -> Array:
    shape = (window.n, *window.out_size(), window.c)
    spec = window.spec(spec_x, (dense("float32", shape),))
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    return run_kernel(kernel, [base], [(shape, "float32")])[0]


WINDOWS = {
    "max": Window("max", (9, 8), (3, 3), (2, 2), (1, 1, 1, 1), n=2, c=35),
    "max ceil": Window("max", (8, 9), (3, 2), (2, 2), (0, 0, 1, 0), ceil=True),
    "max dilated": Window("max", (10, 11), (3, 2), (1, 2), (1, 0, 2, 1), (2, 3)),
    "max 1d": Window("max", (17,), (5,), (3,), (2, 1), (1,), c=8),
    "max 3d": Window("max", (5, 6, 4), (2, 3, 2), (2, 1, 2), (0, 1, 0, 1, 1, 1), (1, 2, 1)),
    "average": Window("average", (9, 8), (3, 3), (2, 1), (1, 1, 1, 1), n=2),
    "average with padding": Window(
        "average", (7, 8), (3, 3), (2, 2), (1, 1, 1, 1), include_pad=True
    ),
    "average 3d": Window("average", (4, 5, 6), (3, 2, 2), (1, 2, 2), (1, 0, 1, 1, 1, 0), (1,) * 3),
    "lp": Window("lp", (8, 8), (3, 2), (2, 2), (1, 0, 1, 1)),
    "lp p=1": Window("lp", (6, 6), (2, 2), (1, 1), (0, 0, 0, 0), p=1),
    "lp p=3": Window("lp", (6, 6), (2, 2), (2, 2), (0, 0, 0, 0), p=3, c=9),
}


@BOTH
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_windows(window: Window, target: Target) -> None:
    x = data(window)
    made = run(window, target, x, dense("float32", x.shape), x)
    np.testing.assert_allclose(made, window.reference(x)[0], 1e-5, 1e-5)


FAR = 2**30
FAR_WINDOWS = {
    "max": Window("max", (5, 6), (FAR, 2), (FAR - 1, 1), (FAR - 1, 0, FAR - 1, 0)),
    "max dilated": Window("max", (50, 5), (2**16, 2), (2**14, 2), (2**15, 1) * 2, (1, 3)),
    "max at the ends of int": Window(
        "max", (5,), (2**31 - 1,), (2**31 - 1,), (2**31 - 2,) * 2, (1,)
    ),
    "average": Window("average", (5, 6), (2**18, 2), (2**18, 1), (2**18 - 1, 0, 2**18 - 1, 0)),
    "average with padding": Window(
        "average", (5, 6), (2**17, 2**17), (2**14, 2**16), (2**16,) * 4, include_pad=True
    ),
    "lp": Window(
        "lp",
        (4, 3, 3),
        (2**20, 2**20, 2),
        (2**19, 2**20, 1),
        (2**19,) * 2 + (1,) + (2**19,) * 2 + (1,),
        (1,) * 3,
    ),
}


@BOTH
@pytest.mark.parametrize("window", FAR_WINDOWS.values(), ids=FAR_WINDOWS)
def test_taps_in_the_padding_are_not_walked(window: Window, target: Target) -> None:
    """2^30 taps and more: the work is that of the input, and no index overflows."""
    x = data(window)
    made = run(window, target, x, dense("float32", x.shape), x)
    np.testing.assert_allclose(made, window.reference(x)[0], 1e-5, 1e-5)


@BOTH
@pytest.mark.parametrize("include_pad", [False, True])
def test_average_counts_no_taps_beyond_the_padding(include_pad: bool, target: Target) -> None:
    """ceil_mode: the last windows hang over the padded input. Expected values by hand."""
    window = Window("average", (4,), (3,), (2,), (1, 1), (1,), 4, include_pad=include_pad)
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    shape = (1, 3, 4)
    spec = window.spec(dense("float32", x.shape), (dense("float32", shape),))
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(shape, "float32")])[0]
    sums = np.stack([x[0, 0] + x[0, 1], x[0, 1] + x[0, 2] + x[0, 3], x[0, 3]])
    counts = np.array([3, 3, 2] if include_pad else [2, 3, 1])
    np.testing.assert_allclose(made[0], sums / counts[:, None], 1e-6)


@BOTH
@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("name", ["max", "max 1d", "max 3d", "max dilated far"])
def test_indices(name: str, column_major: bool, target: Target) -> None:
    window = FAR_WINDOWS["max dilated"] if name == "max dilated far" else WINDOWS[name]
    x = data(window)
    values, indices = window.reference(x, storage_order=int(column_major))
    outs = (dense("float32", values.shape), dense("int64", indices.shape))
    spec = window.spec(dense("float32", x.shape), outs, column_major=column_major)
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(values.shape, "float32"), (indices.shape, "int64")])
    np.testing.assert_array_equal(made[0], values)
    np.testing.assert_array_equal(made[1], indices)


@BOTH
def test_input_of_any_strides(target: Target) -> None:
    window = WINDOWS["max"]
    x = data(window)
    base = channels_first(x)
    made = run(window, target, x, view_of(np.moveaxis(base, 1, -1), base), base)
    np.testing.assert_array_equal(made, window.reference(x)[0])


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int8"])
def test_dtypes_of_maxima(dtype: str, target: Target) -> None:
    window = WINDOWS["max ceil"]
    x = (data(window) * 40).astype(dtype)
    shape = (1, *window.out_size(), window.c)
    spec = window.spec(dense(dtype, x.shape), (dense(dtype, shape),))
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(shape, dtype)])[0]
    expected = window.reference(x.astype(np.float32))[0]
    np.testing.assert_array_equal(made, expected.astype(dtype))


@BOTH
@pytest.mark.parametrize("opset", [18, 19])
@pytest.mark.parametrize("name", ["average", "average with padding", "average 3d"])
def test_averages_that_become_integers_are_to_the_bit(
    name: str, opset: int, target: Target
) -> None:
    """Of decoded bytes: a quarter of them may lie halfway between two integers.

    ONNX Runtime adds a window by columns before operator set 19, by rows from there on.
    """
    window = WINDOWS[name]
    codes = rng.integers(0, 256, (window.n, *window.size, window.c))
    x = codes.astype(np.float32) * np.float32(0.02387)
    attrs = window.attributes()
    attrs.pop("dilations")
    (first,) = run_node("AveragePool", [channels_first(x)], attrs, opset=opset)
    expected = channels_last(first)
    b = Builder(["float32"])
    bits = b.build((Term(b, 0) * float(2**21)).cast("int32").number)
    order: Literal["rows", "columns"] = "columns" if opset < 19 else "rows"
    out = dense("int32", expected.shape)
    spec = window.spec(dense("float32", x.shape), (out,), bits, order=order)
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    made = run_kernel(kernel, [x], [(expected.shape, "int32")])[0]
    np.testing.assert_array_equal(made, (expected * np.float32(2**21)).astype(np.int32))


@BOTH
def test_dynamic_sizes_with_an_epilogue(target: Target) -> None:
    """relu(pool(x) + residual) for two sizes of one kernel."""
    n, h, w = sym("n"), sym("h"), sym("w")
    window = Window("average", (0, 0), (2, 3), (2, 1), (0, 1, 0, 1), c=9)
    shape: tuple[Dim, ...] = (n, floordiv(h - 2, 2) + 1, w, 9)
    b = Builder(["float32", "float32"])
    epilogue = b.build(b.op("max_with", b.const(0.0, "float32"), b.op("add", 0, 1)))
    x = dense("float32", (n, h, w, 9))
    spec = window.spec(x, (dense("float32", shape),), epilogue, (dense("float32", shape),))
    kernel = pool.emit(spec, pool.candidates(spec, target)[0], target)
    for sizes in ((1, 6, 5), (3, 4, 9)):
        values = dict(zip("nhw", sizes, strict=True))
        sized = Window("average", sizes[1:], (2, 3), (2, 1), (0, 1, 0, 1), c=9, n=sizes[0])
        data_in = data(sized)
        expected = sized.reference(data_in)[0]
        residual = rng.standard_normal(expected.shape).astype(np.float32)
        made = run_kernel(kernel, [data_in, residual], [(expected.shape, "float32")], values)[0]
        np.testing.assert_allclose(made, np.maximum(expected + residual, 0), 1e-5, 1e-5)
