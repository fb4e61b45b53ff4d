"""Matrix units by their emulation: the same loads, places and packing as the instructions have."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, run_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contraction import product
from test_conv import PLAIN, Window, check

from clinfer_kernels import matmul
from clinfer_kernels.contraction.matrix_units import EMULATED, MATRIX_UNITS, available
from clinfer_kernels.contraction.narrow import narrowed
from clinfer_kernels.contraction.tiles import LocalTile, Sized, unit_for
from clinfer_kernels.conv_gpu import GpuTile
from clinfer_kernels.dims import sym
from clinfer_kernels.families import candidates, emit_best
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import MatmulSpec

GPU = TARGETS["gpu"]
NVIDIA = Target(
    cls="gpu",
    compute_units=132,
    max_work_group=1024,
    local_mem=49152,
    dialect="nvidia",
    matrix_units=available((9, 0), "NVIDIA H200", ()),
)
rng = np.random.default_rng(7)

# What a result may be off by, of the sum of its products' magnitudes: twice the rounding of an
# operand, and float32's own of the sums.
BOUNDS = {"float16": 2**-10, "bfloat16": 2**-7, "tf32": 2**-10, "float32": 2**-20}
WAYS = sorted({unit.name.removesuffix(EMULATED) for unit in MATRIX_UNITS.values()})
GEOMETRIES = ((8, 8, 4, 4, 32), (8, 8, 4, 8, 16), (16, 4, 2, 8, 32))


def off(got, a, b):
    """The largest error, of the sum of the products' magnitudes."""
    a, b = a.astype(float), b.astype(float)
    return np.max(np.abs(got - a @ b) / np.maximum(np.abs(a) @ np.abs(b), 1e-30), initial=0)


def tile_of(name, geometry):
    wg_rows, wg_cols, rows, cols, k_step = geometry
    return LocalTile(wg_rows, wg_cols, rows, cols, k_step, unit=name + EMULATED)


@pytest.mark.parametrize("name", WAYS)
@given(
    m=st.integers(1, 70),
    n=st.integers(1, 70),
    k=st.integers(0, 70),
    transposed=st.booleans(),
    is_split=st.booleans(),
)
@settings(max_examples=4, deadline=None)
def test_every_size_is_right(name, m, n, k, transposed, is_split):
    """Around and between the edges of tiles, fragments and vectors; B as [K, N] or as [N, K]."""
    a = rng.standard_normal((m, k), np.float32)
    b = rng.standard_normal((n, k) if transposed else (k, n), np.float32)
    spec = product(m, n, k, constant=False)
    if transposed:
        view = dense("float32", (n, k))._replace(shape=(k, n), strides=(1, k))
        spec = MatmulSpec(False, spec.epilogue, (spec.ins[0], view), spec.outs)
    tile = tile_of(name, (8, 8, 4, 8, 32))
    kernel = matmul.emit(spec, replace(tile, is_split=is_split), GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), "float32")])
    assert off(got, a, b.T if transposed else b) <= BOUNDS[MATRIX_UNITS[name].operand]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", ["mma_f16", "mma_tf32"])
def test_every_geometry_of_waves_is_right(name, geometry):
    tile = tile_of(name, geometry)
    m, n, k = tile.tile_m + 3, 2 * tile.tile_n, 3 * tile.k_step + 4
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    kernel = matmul.emit(product(m, n, k), tile, GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), "float32")])
    assert off(got, a, b) <= BOUNDS[MATRIX_UNITS[name].operand]


@pytest.mark.parametrize(("name", "dtype"), [("mma_f16", "float16"), ("mma_bf16", "bfloat16")])
@pytest.mark.parametrize("sizes", [(33, 36, 40), (20, 31, 45)])
def test_operands_of_16_bits_are_multiplied_exactly(name, dtype, sizes):
    """Sums are float32's; only the stored result is rounded."""
    m, n, k = sizes
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    a, b = (rng.standard_normal(s, np.float32).astype(kind) for s in ((m, k), (k, n)))
    spec = product(m, n, k, dtype, constant=False)
    kernel = matmul.emit(spec, tile_of(name, (8, 8, 4, 8, 32)), GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), dtype)])
    expected = a.astype(float) @ b.astype(float)
    rounding = 2**-11 if dtype == "float16" else 2**-8
    magnitudes = np.abs(a).astype(float) @ np.abs(b).astype(float)
    error = np.abs(got.astype(float) - expected)
    assert np.all(error <= 1.01 * rounding * np.abs(expected) + 2**-20 * magnitudes)


EXACT = tile_of("mma_3xtf32", (8, 8, 4, 8, 32))
PLAIN_TILE = LocalTile(4, 4, 4, 4, unroll=1)


def both(a, b):
    """a @ b by three terms and by multiply-adds of float32."""
    spec = product(a.shape[0], b.shape[1], a.shape[1], constant=False)
    shape = [((a.shape[0], b.shape[1]), "float32")]
    return [run_kernel(matmul.emit(spec, t, GPU), [a, b], shape)[0] for t in (EXACT, PLAIN_TILE)]


def hard(kind, shape):
    """Operands that are hard to sum: of one sign, of mixed magnitudes, with sums that cancel, with
    all bits of the significand, and close to the least and the largest normal numbers."""
    values = rng.standard_normal(shape, np.float32)
    if kind == "positive":
        return np.abs(values)
    if kind == "magnitudes":
        return values * np.float32(2) ** rng.integers(-20, 20, shape).astype(np.float32)
    if kind == "cancelling":
        values[..., 1::2] = -values[..., ::2] * np.float32(1 + 2**-12)
        return values
    if kind == "full significands":
        return np.float32(2) - np.float32(2**-23) * rng.integers(1, 9, shape).astype(np.float32)
    return values * np.float32({"tiny": 2.0**-50, "huge": 2.0**56}[kind])


@pytest.mark.parametrize(
    "kind", ["positive", "magnitudes", "cancelling", "full significands", "tiny", "huge"]
)
@pytest.mark.parametrize("k", [64, 768])
def test_three_terms_are_as_good_as_float32(kind, k):
    """No more than what the multiply-adds of a float32 kernel are off by, or than ten roundings of
    the sum of magnitudes; the emulation rounds an instruction's sums towards zero.
    """
    a, b = hard(kind, (24, k)), np.ascontiguousarray(hard(kind, (20, k)).T)
    exact, plain = (off(got, a, b) for got in both(a, b))
    assert exact <= max(plain, 10 * 2**-24)


def test_three_terms_keep_what_is_not_finite():
    """Infinity and NaN as float32 has them: infinite operands, zeros beside them, NaN of any bits,
    numbers next to the largest, and sums beyond it."""
    a, b = (rng.standard_normal(s, np.float32) for s in ((40, 70), (70, 37)))
    a[0, 3], a[1, 69], a[2, 5], b[9, 2] = np.inf, -np.inf, np.nan, np.inf
    a[3, 7] = np.uint32(0x7FFFFFFF).view(np.float32)
    a[4, 8], b[8, 1] = np.inf, 0
    a[5] = 0
    a[5, 11], b[11] = np.finfo(np.float32).max, 1
    a[6, :2], b[:2, 5] = (3e38, 3e38), 1
    a[7, :2], b[:2, 6] = (3e38, -3e38), 8
    got, plain = both(a, b)
    assert not np.isfinite(plain).all()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(plain))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(plain))
    np.testing.assert_allclose(got, plain, rtol=1e-3, atol=1e-4)


def test_subnormal_operands_lose_what_tf32_has_not():
    """The rest of an operand below 2^-113 has no bits in TF32: an absolute error of 2^-136."""
    a = np.float32(2.0**-130) * rng.standard_normal((8, 64), np.float32)
    b = rng.standard_normal((64, 8), np.float32)
    got, _ = both(a, b)
    expected = a.astype(float) @ b.astype(float)
    assert np.max(np.abs(got - expected)) <= 2.0**-135 * np.abs(b).sum(0).max()


@pytest.mark.parametrize("name", ["3x3", "few channels", "grouped", "one tap"])
def test_convolutions_of_three_terms(name):
    """As exact as float32's; one infinite input makes the results infinite or NaN that see it."""
    one_tap = Window(32, 21, (5, 4), (3, 3), pads=(1, 1, 1, 1))
    window = {**PLAIN, "one tap": one_tap}[name]
    target = GPU._replace(precision="3xtf32", matrix_units=("mma_3xtf32" + EMULATED,))
    check(window, target, tile=GpuTile(EXACT, not window.constant))
    check(window, target, tile=GpuTile(EXACT, not window.constant), infinite=True)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "given"])
@pytest.mark.parametrize("name", ["3x3", "few channels", "grouped", "one tap"])
def test_convolutions(name, constant):
    """Weights rounded once, or packed by a launch; windows that begin in the padding."""
    one_tap = Window(32, 21, (5, 4), (3, 3), pads=(1, 1, 1, 1))
    window = replace({**PLAIN, "one tap": one_tap}[name], constant=constant)
    target = GPU._replace(precision="f16", matrix_units=("mma_f16" + EMULATED,))
    cut = tile_of("mma_f16", (8, 8, 4, 8, 32))
    check(window, target, tolerance=2e-2, tile=GpuTile(cut, not constant))


def test_narrowed_rounds_to_nearest_even_and_keeps_nan():
    values = np.array([1 + 2**-9, 1 + 3 * 2**-9, -0.0, np.inf, np.nan, 3.4e38, 1e-40], np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    got = narrowed(values, "bfloat16").view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got.astype(float), expected.astype(float))
    halves = narrowed(values, "float16").view(np.float16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(halves, values.astype(np.float16))


# -- what is chosen --------------------------------------------------------------------------------


def entries(spec, target):
    return [launch.entry for launch in emit_best(spec, target).launches]


@pytest.mark.parametrize(
    ("dtype", "precision", "unit"),
    [
        ("float32", "f32", None),
        ("float32", "3xtf32", "mma_3xtf32"),
        ("float32", "tf32", "mma_tf32"),
        ("float32", "f16", "mma_f16"),
        ("float32", "bf16", "mma_bf16"),
        ("float16", "f32", "mma_f16"),
        ("bfloat16", "f32", "mma_bf16"),
        ("bfloat16", "f16", "mma_bf16"),
        ("float64", "f16", None),
    ],
)
def test_storage_and_hint_choose_the_unit(dtype, precision, unit):
    target = NVIDIA._replace(precision=precision)
    made = entries(product(4096, 768, 768, dtype), target)
    assert made[0].startswith(f"matmul_{unit}_" if unit else "matmul_local_")


@pytest.mark.parametrize("capability", [(0, 0), (7, 5)])
def test_devices_without_the_instructions_multiply_in_float32(capability):
    target = NVIDIA._replace(matrix_units=available(capability, "", ()), precision="f16")
    assert unit_for(("float32", "float32"), target) is None
    assert entries(product(4096, 768, 768), target)[0].startswith("matmul_local_")


@pytest.mark.parametrize(("k", "unit"), [(16, "local"), (768, "mma_3xtf32")])
def test_short_sums_stay_with_multiply_adds(k, unit):
    """Float32's error grows with the length of a sum, that of three terms begins above it."""
    target = NVIDIA._replace(precision="3xtf32")
    assert entries(product(4096, 768, k), target)[0].startswith(f"matmul_{unit}_")


def test_a_refused_unit_leaves_multiply_adds():
    """The driver may not take the instruction: the schedules after it do without."""
    for rows in (4096, sym("rows")):
        tiles = candidates(product(rows, 768, 768), NVIDIA._replace(precision="f16"))
        plain = [t for t in tiles if isinstance(t, LocalTile | Sized) and "mma" not in repr(t)]
        assert "mma" in repr(tiles[0]) and plain


@pytest.mark.parametrize("rows", [1, 3, 70, 300])
@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_a_plan_of_unknown_sizes_is_right(rows, precision):
    """Few rows, too, read the weights that were rounded once."""
    names = tuple(name for name in MATRIX_UNITS if name.endswith(EMULATED))
    target = GPU._replace(precision=precision, matrix_units=names, local_mem=1 << 20)
    spec = product(sym("rows"), 36, 200)
    tile = Sized(*(tile_of(f"mma_{precision}", g) for g in ((8, 8, 4, 8, 32),) * 2),
                 candidates(spec, target)[0].few)  # fmt: skip
    a, b = (rng.standard_normal(s, np.float32) for s in ((rows, 200), (200, 36)))
    kernel = matmul.emit(spec, tile, target)
    (got,) = run_kernel(kernel, [a, b], [((rows, 36), "float32")], {"rows": rows})
    assert off(got, a, b) <= BOUNDS[{"f16": "float16", "bf16": "bfloat16"}[precision]]
