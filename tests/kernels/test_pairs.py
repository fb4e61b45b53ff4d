"""Products and convolutions of pairs of bfloat16 against those of the rounded operands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, run_kernel, view_of
from test_conv import Window, data

from clinfer.device.processor import instruction_set
from clinfer_kernels import conv, matmul
from clinfer_kernels.conv_pairs import PairsTile as ConvTile
from clinfer_kernels.conv_pairs import pair_tiles as conv_tiles
from clinfer_kernels.expr import identity
from clinfer_kernels.matmul_pairs import PairPanels, PairsTile, pair_tiles
from clinfer_kernels.matmul_problem import simplify
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import MatmulSpec

Array = np.ndarray[Any, Any]
CPU = TARGETS["cpu"]._replace(architecture=f"skx/{instruction_set()}", precision="bf16")
rng = np.random.default_rng(3)


def rounded(array: Array) -> Array:
    return array.astype(ml_dtypes.bfloat16)


def product(m: int, n: int, k: int) -> MatmulSpec:
    """Of dense float32, B a constant."""
    views = (dense("float32", (m, k)), dense("float32", (k, n)))
    return MatmulSpec(True, identity("float32"), views, (dense("float32", (m, n)),))


def agree(a: Array, b: Array, tile: PairsTile, base: Array | None = None) -> None:
    """`tile`'s product of `a`, a view of `base`, and the constant `b`."""
    base = a if base is None else base
    shape = (*a.shape[:-1], b.shape[-1])
    views = (view_of(a, base), view_of(np.broadcast_to(b, (*a.shape[:-2], *b.shape)), b))
    spec = MatmulSpec(True, identity("float32"), views, (dense("float32", shape),))
    (got,) = run_kernel(matmul.emit(spec, tile, CPU), [base, b], [(shape, "float32")])
    left, right = (rounded(x).astype(np.float64) for x in (a, b))
    bound = 2e-6 * np.matmul(np.abs(left), np.abs(right)) + 1e-30
    assert np.all(np.abs(got - np.matmul(left, right)) <= bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(1, 1, 1), (9, 49, 5), (17, 130, 64), (2, 16, 33)])
def test_products_are_those_of_rounded_numbers(dtype: str, size: tuple[int, int, int]) -> None:
    m, n, k = size
    a = rng.standard_normal((m, k), np.float32)
    b = rng.standard_normal((k, n), np.float32)
    if dtype == "bfloat16":
        a, b = rounded(a), rounded(b)
    agree(a, b, PairsTile(4, 3, 16, a="strided" if dtype == "bfloat16" else "copied"))


def test_views_batches_and_any_compiler() -> None:
    base = rng.standard_normal((3, 11, 7), np.float32)
    b = rng.standard_normal((11, 20), np.float32)
    agree(base.swapaxes(1, 2), b, PairsTile(3, 2, 8, a="copied"), base)


def test_what_lies_beyond_a_row_does_not_count() -> None:
    a = rng.standard_normal((4, 5), np.float32)
    a[2, 0] = np.inf
    b = rng.standard_normal((5, 3), np.float32)
    kernel = matmul.emit(product(4, 3, 5), PairsTile(4, 1, 8, a="copied"), CPU)
    (got,) = run_kernel(kernel, [a, b], [((4, 3), "float32")])
    assert np.isinf(got[2]).all() and np.isfinite(got[[0, 1, 3]]).all()


def test_nobody_rounds_unasked() -> None:
    problem = simplify(product(64, 64, 64))
    wide = CPU._replace(vector_width=16, dialect="pocl")
    capable = wide._replace(architecture="znver4/x86-64-v4+avx512_bf16")
    assert pair_tiles(problem, True, capable)
    assert not pair_tiles(problem, True, capable._replace(precision="f32"))
    assert not pair_tiles(problem, False, capable)
    assert not pair_tiles(problem, True, capable._replace(dialect="intel_cpu"))


def test_bfloat16_is_multiplied_exactly_unasked() -> None:
    exact = CPU._replace(precision="f32")
    a, b = rounded(np.array([[1e-39, 3.0]])), rounded(np.array([[2.0, 5.0], [0.0, 1e-39]]))
    views = tuple(dense("bfloat16", array.shape) for array in (a, b))
    spec = MatmulSpec(True, identity("float32"), views, (dense("float32", (1, 2)),))
    (tile,) = pair_tiles(simplify(spec), True, exact)
    (got,) = run_kernel(matmul.emit(spec, tile, exact), [a, b], [((1, 2), "float32")])
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_packed_number_takes_two_bytes() -> None:
    packed = PairPanels(32).pack(np.ones((64, 96), np.float32))
    assert packed.nbytes == 64 * 96 * 2


WINDOWS = [
    Window(c=6, m=33, size=(5, 7), kernel=(3, 3), pads=(1, 1, 1, 1)),
    Window(c=4, m=40, size=(9,), kernel=(4,), strides=(2,), dilations=(2,), pads=(1, 3), n=2),
    Window(c=12, m=9, size=(3, 4, 5), kernel=(2, 1, 2), groups=3),
    Window(c=64, m=32, size=(6, 6), kernel=(1, 1)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=range(len(WINDOWS)))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolutions_are_those_of_rounded_numbers(window: Window, dtype: str) -> None:
    window = window.full
    x, w = data(window)
    stored = [rounded(array) for array in (x, w)] if dtype == "bfloat16" else [x, w]
    shape = (window.n, *window.out_size(window.size), window.m)
    views = [dense(dtype, array.shape) for array in stored]
    spec = window.spec(views[0], dense("float32", shape), identity("float32"), ())
    spec = replace(spec, ins=tuple(views))
    tile = ConvTile(3, 2, 16, copy_x=dtype == "float32")
    (got,) = run_kernel(conv.emit(spec, tile, CPU), stored, [(shape, "float32")])
    left, right = (rounded(array).astype(np.float32) for array in (x, w))
    np.testing.assert_allclose(got, window.reference(left, right), rtol=1e-5, atol=1e-5)


def test_which_convolutions_are_rounded() -> None:
    capable = CPU._replace(
        vector_width=16, dialect="pocl", architecture="znver4/x86-64-v4+avx512_bf16"
    )

    def offered(window: Window) -> bool:
        window = window.full
        out = dense("float32", (window.n, *window.out_size(window.size), window.m))
        x = dense("float32", (window.n, *window.size, window.c))
        return bool(conv_tiles(window.spec(x, out, identity("float32"), ()), capable))

    plain = Window(c=64, m=64, size=(7, 7), kernel=(1, 1))
    assert offered(plain)
    assert not offered(replace(plain, c=3))
    assert not offered(replace(plain, m=8))
    assert not offered(replace(plain, constant=False))
    assert not offered(replace(plain, transposed=True))
