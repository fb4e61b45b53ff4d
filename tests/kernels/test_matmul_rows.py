"""Products of normalised rows, and sums of rows for them, against NumPy in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import TARGETS, run_kernel

from clinfer_kernels import matmul_rows
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.matrix_units import EMULATED
from clinfer_kernels.contraction.tiles import LocalTile, Sized
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import Builder, identity
from clinfer_kernels.row_specs import RowMatmulSpec
from clinfer_kernels.spec import Tensor, dense

GPU = TARGETS["gpu"]
rng = np.random.default_rng(11)
PLAIN = LocalTile(2, 16, 4, 4, unroll=1)
TILES = {
    "plain": PLAIN,
    "parts": replace(PLAIN, is_split=True),
    "few rows": FewRows(2, 16, 2),
    "few rows, parts": FewRows(2, 16, 4, is_split=True),
    "f16": LocalTile(8, 8, 2, 8, 32, unit="mma_f16" + EMULATED),
    "3xtf32": LocalTile(8, 8, 2, 8, 32, unit="mma_3xtf32" + EMULATED),
    "bf16x3": LocalTile(2, 16, 16, 4, 16, unit="dpas8_bf16x3" + EMULATED),
}


def spec_of(m, n, k, dtype="float32", rms=False, keeps=True, sums=True, eps=1e-5):
    """norm(a) * gain + shift, times b, plus a residual."""
    builder = Builder([dtype, dtype, dtype])
    norm = builder.build(builder.op("add", builder.op("mul", 0, 1), 2))
    builder = Builder(["float32" if dtype == "float32" else dtype, dtype])
    end = builder.build(builder.op("add", 0, 1))
    column = Tensor(dtype, (k,), (1,))
    ins = [dense(dtype, (m, k)), dense(dtype, (k, n)), dense(dtype, (m, n))]
    ins += [dense("float32", (m, k // 64, 2)), column, column._replace(strides=(0,))]
    outs = [dense(dtype, (m, n))]
    outs += [dense("float32", (m, 1))] * (2 * keeps) + [dense("float32", (m, n // 64, 2))] * sums
    return RowMatmulSpec(norm, rms, eps, keeps, sums, end, tuple(ins), tuple(outs))


def sums_of(x):
    parts = x.astype(float).reshape(len(x), -1, 64)
    mean = parts.mean(-1)
    return np.stack([mean, ((parts - mean[..., None]) ** 2).sum(-1)], -1)


def data(m, n, k, dtype, offset=3.0):
    a = (rng.standard_normal((m, k)) * rng.uniform(0.1, 9, (m, 1)) + offset).astype(dtype)
    b = (rng.standard_normal((k, n)) / np.sqrt(k)).astype(dtype)
    residual, gain = rng.standard_normal((m, n)).astype(dtype), rng.uniform(-2, 2, k).astype(dtype)
    return a, b, residual, gain, np.array([0.25], dtype)


def expected(a, b, residual, gain, shift, rms, eps=1e-5):
    a = a.astype(float)
    mean = np.zeros((len(a), 1)) if rms else a.mean(1, keepdims=True)
    inverse = 1 / np.sqrt(((a - mean) ** 2).mean(1, keepdims=True) + eps)
    rows = (a - mean) * inverse * gain.astype(float) + shift.astype(float)
    return rows @ b.astype(float) + residual.astype(float), mean, inverse


def check(m, n, k, tile, dtype="float32", rms=False, tolerance=2e-5, symbols=None, target=GPU):
    a, b, residual, gain, shift = data(m, n, k, dtype)
    spec = spec_of(sym("m") if symbols else m, n, k, dtype, rms)
    ins = [a, b, residual, sums_of(a).astype(np.float32), gain, shift]
    shapes = [((m, n), dtype), ((m, 1), "float32"), ((m, 1), "float32")]
    shapes.append(((m, n // 64, 2), "float32"))
    got, mean, inverse, sums = run_kernel(
        matmul_rows.emit(spec, tile, target), ins, shapes, symbols
    )
    wanted, wanted_mean, wanted_inverse = expected(a, b, residual, gain, shift, rms)
    np.testing.assert_allclose(got.astype(float), wanted, tolerance, tolerance * 4)
    np.testing.assert_allclose(mean, wanted_mean, 1e-5, 1e-5)
    np.testing.assert_allclose(inverse, wanted_inverse, 1e-5)
    np.testing.assert_allclose(sums, sums_of(got), 1e-4, 1e-4)


@pytest.mark.parametrize("name", TILES)
def test_rows_are_normalised_and_summed(name):
    for m, n, k in ((1, 64, 64), (37, 192, 320)):
        check(m, n, k, TILES[name], rms=name == "parts", tolerance=4e-3 if name == "f16" else 2e-5)


@pytest.mark.parametrize("name", ["few rows", "f16"])
def test_rows_of_float16(name):
    """Sums are of what is stored; operands of 16 bits are normalised in float32."""
    check(37, 128, 192, TILES[name], "float16", tolerance=5e-3)


def test_sizes_of_a_run():
    """A plan of unknown sizes: few rows, parts of K, and neither."""
    tile = Sized(replace(PLAIN, wg_rows=4), PLAIN, (FewRows(2, 16, 2),))
    for rows in (1, 3, 150):
        check(rows, 128, 256, tile, symbols={"m": rows})


def test_every_candidate_gives_whole_sums():
    """Tiles as wide as the columns that sums are of; few rows of B stored as [N, K] too."""
    spec = spec_of(1, 128, 128)
    turned = spec.ins[1]._replace(strides=(1, 128))
    for each in (spec, replace(spec, ins=(spec.ins[0], turned, *spec.ins[2:]))):
        tiles = matmul_rows.candidates(each, GPU)
        assert len(tiles) > 1
        assert all(t.tile_n % 64 == 0 for t in tiles if isinstance(t, LocalTile))
    a, b, residual, gain, shift = data(1, 128, 128, "float32")
    ins = [a, np.ascontiguousarray(b.T), residual, sums_of(a).astype(np.float32), gain, shift]
    shapes = [((1, 128), "float32"), *[((1, 1), "float32")] * 2, ((1, 2, 2), "float32")]
    for tile in (tiles[0], tiles[-1]):
        assert isinstance(tile, FewRows)
        got, *_, sums = run_kernel(matmul_rows.emit(each, tile, GPU), ins, shapes)
        wanted = expected(a, b, residual, gain, shift, False)[0]
        np.testing.assert_allclose(got, wanted, 2e-5, 1e-4)
        np.testing.assert_allclose(sums, sums_of(got), 1e-4, 1e-4)


def test_a_mean_far_from_zero_loses_nothing():
    a, b, residual, gain, shift = data(9, 64, 128, "float32", offset=3000.0)
    spec = spec_of(9, 64, 128, keeps=False, sums=False)
    ins = [a, b, residual, sums_of(a).astype(np.float32), gain, shift]
    (got,) = run_kernel(matmul_rows.emit(spec, PLAIN, GPU), ins, [((9, 64), "float32")])
    np.testing.assert_allclose(got, expected(a, b, residual, gain, shift, False)[0], 1e-2, 1e-2)


def test_only_sums():
    """What a norm reads that is not normalised itself."""
    builder = identity("float32")
    spec = RowMatmulSpec(None, False, 0.0, False, True, builder,
                         (dense("float32", (20, 36)), dense("float32", (36, 128))),
                         (dense("float32", (20, 128)), dense("float32", (20, 2, 2))))  # fmt: skip
    a, b = rng.standard_normal((20, 36), np.float32), rng.standard_normal((36, 128), np.float32)
    shapes = [((20, 128), "float32"), ((20, 2, 2), "float32")]
    got, sums = run_kernel(matmul_rows.emit(spec, PLAIN, GPU), [a, b], shapes)
    np.testing.assert_allclose(got, a.astype(float) @ b, 1e-5, 1e-5)
    np.testing.assert_allclose(sums, sums_of(got), 1e-5, 1e-5)
