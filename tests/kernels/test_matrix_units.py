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


def test_three_terms_are_as_good_as_float32():
    """Against multiply-adds of float32, for sums of BERT's length; large numbers stay finite."""
    a, b = rng.standard_normal((32, 3072), np.float32), rng.standard_normal((3072, 32), np.float32)
    a[0] *= np.float32(1e30)
    spec = product(32, 32, 3072, constant=False)
    errors = []
    for tile in (tile_of("mma_3xtf32", (8, 8, 4, 8, 32)), LocalTile(4, 4, 4, 4, unroll=1)):
        (got,) = run_kernel(matmul.emit(spec, tile, GPU), [a, b], [((32, 32), "float32")])
        errors.append(off(got, a, b))
    assert errors[0] <= max(2 * errors[1], 2**-21)


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
