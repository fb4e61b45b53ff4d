"""Matrix units by their emulation: the same loads, places and packing as the instructions have."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, run_kernel
from test_contraction import product
from test_conv import PLAIN, Window, check
from test_integer import CONVOLUTIONS, conv_spec

from clinfer_kernels import conv, matmul
from clinfer_kernels.contraction.matrix_tiles import cuts_of
from clinfer_kernels.contraction.matrix_units import EMULATED, MATRIX_UNITS, available, unit_for
from clinfer_kernels.contraction.narrow import narrowed
from clinfer_kernels.contraction.tiles import LocalTile, Sized
from clinfer_kernels.contraction.units_intel import DPAS
from clinfer_kernels.conv_gpu import GpuTile
from clinfer_kernels.dims import sym
from clinfer_kernels.expr import identity
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
ALL = sorted({unit.name.removesuffix(EMULATED) for unit in MATRIX_UNITS.values()})


def off(got, a, b):
    """The largest error, of the sum of the products' magnitudes."""
    a, b = a.astype(float), b.astype(float)
    return np.max(np.abs(got - a @ b) / np.maximum(np.abs(a) @ np.abs(b), 1e-30), initial=0)


# By the lanes of a wave along rows and columns: small, of several fragments, where they allow it of
# several waves.
SMALL = {
    (8, 4): (8, 8, 4, 8),
    (16, 4): (16, 4, 4, 16),
    (16, 2): (16, 4, 2, 16),
    (1, 8): (4, 16, 8, 4),
    (1, 16): (4, 16, 8, 4),
}


def tile_of(name, geometry=None):
    """A small tile of the unit's emulation."""
    unit = MATRIX_UNITS[name]
    geometry = geometry or (*SMALL[unit.rows.lanes, unit.cols.lanes], unit.depth)
    return LocalTile(*geometry, unit=name + EMULATED)


def numbers(dtype, *shape):
    """Random numbers; of 8-bit integers all there are, the least and the greatest among them."""
    if dtype in ("int8", "uint8"):
        limits = np.iinfo(dtype)
        made = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        made.reshape(-1)[:2] = (limits.min, limits.max)[: made.size]
        return made
    return rng.standard_normal(shape, np.float32)


def agree(name, sizes, transposed=False, is_split=False, tile=None):
    """The unit's product of float32, or of 8-bit integers, against NumPy's."""
    m, n, k = sizes
    unit = MATRIX_UNITS[name]
    left, right = (unit.operand, "int8") if unit.acc == "int32" else ("float32", "float32")
    a, b = numbers(left, m, k), numbers(right, *((n, k) if transposed else (k, n)))
    views = [dense(left, (m, k)), dense(right, (k, n))]
    if transposed:
        views[1] = dense(right, (n, k))._replace(shape=(k, n), strides=(1, k))
    out = dense(unit.acc, (m, n))
    spec = MatmulSpec(False, identity(unit.acc), tuple(views), (out,))
    kernel = matmul.emit(spec, replace(tile or tile_of(name), is_split=is_split), GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), unit.acc)])
    b = b.T if transposed else b
    if unit.acc == "int32":
        np.testing.assert_array_equal(got, a.astype(int) @ b.astype(int))
    else:
        assert off(got, a, b) <= BOUNDS[unit.operand], sizes


# Around and between the edges of tiles, fragments and vectors.
ODD = [(3, 5, 2), (17, 33, 15), (31, 65, 33), (34, 63, 47), (70, 66, 70)]
EVEN = [(4, 8, 32), (33, 68, 64), (66, 36, 96)]
LEAST = [(1, 1, 1), (3, 5, 1), (3, 5, 0)]


def layout_of(name):
    """What loads, places and results follow from."""
    unit = MATRIX_UNITS[name]
    how = unit.terms.hint, unit.flips, unit.packing.size
    return unit.rows, unit.cols, unit.a, unit.b, unit.k, unit.order, *how


# One unit of each layout; those of the same differ in rounding and signs.
LAYOUTS = sorted({layout_of(name): name for name in reversed(ALL)}.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_size_is_right(name):
    for sizes in (*ODD, *(LEAST if name == "mma_bf16" else ())):
        agree(name, sizes)


@pytest.mark.parametrize("transposed", [False, True], ids=["[K, N]", "[N, K]"])
@pytest.mark.parametrize(
    "name", ["mma_f16", "mma_tf32", "mma_s8", "dpas8_f16", "dpas16_f16", "dpas16_s8"]
)
def test_whole_vectors_are_right(name, transposed):
    """One unit for each way in which operands lie in local memory; B as [K, N] or as [N, K]."""
    for sizes in EVEN:
        agree(name, sizes, transposed)


@pytest.mark.parametrize("name", ["mma_f16", "mma_u8"])
def test_parts_of_k_are_added(name):
    agree(name, (33, 35, 199), is_split=True)


@pytest.mark.parametrize("geometry", [(8, 8, 4, 4, 32), (16, 4, 2, 8, 32)])
def test_every_geometry_of_waves_is_right(geometry):
    tile = tile_of("mma_tf32", geometry)
    agree("mma_tf32", (tile.tile_m + 3, 2 * tile.tile_n, 3 * tile.k_step + 4), tile=tile)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("along", ["k", "place"])
@pytest.mark.parametrize("width", [1, 4])
def test_work_items_share_every_tile(name, along, width):
    """Whatever an operand's memory looks like, each has as many pieces."""
    for cut in cuts_of(MATRIX_UNITS[name]):
        tile = LocalTile(*cut, unit=name)
        for size in (tile.tile_m, tile.tile_n):
            row = (tile.k_step if along == "k" else size) // width
            pieces, rest = divmod(size * tile.k_step, tile.work_group * width)
            assert rest == 0 and tile.work_group % row == 0, cut
            assert along == "k" or pieces % 2 == 0, cut


def test_subnormal_halves_are_zero_where_the_unit_takes_them_so():
    a = np.full((4, 8), 2**-15, np.float16)
    b = np.ones((8, 4), np.float16)
    spec = product(4, 4, 8, "float16", constant=False)
    for name, expected in (("mfma_f16", 2**-12), ("mfma_f16_flushing", 0)):
        (got,) = run_kernel(matmul.emit(spec, tile_of(name), GPU), [a, b], [((4, 4), "float16")])
        np.testing.assert_array_equal(got, np.full((4, 4), expected, np.float16))


@pytest.mark.parametrize(
    ("name", "dtype", "sizes"),
    [
        ("mma_f16", "float16", (20, 31, 45)),
        ("mma_bf16", "bfloat16", (33, 36, 40)),
        ("dpas8_bf16", "bfloat16", (33, 36, 40)),
        ("dpas16_f16", "float16", (20, 31, 45)),
    ],
)
def test_operands_of_16_bits_are_multiplied_exactly(name, dtype, sizes):
    """Sums are float32's; only the stored result is rounded."""
    m, n, k = sizes
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    a, b = (rng.standard_normal(s, np.float32).astype(kind) for s in ((m, k), (k, n)))
    spec = product(m, n, k, dtype, constant=False)
    kernel = matmul.emit(spec, tile_of(name), GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), dtype)])
    expected = a.astype(float) @ b.astype(float)
    rounding = 2**-11 if dtype == "float16" else 2**-8
    magnitudes = np.abs(a).astype(float) @ np.abs(b).astype(float)
    error = np.abs(got.astype(float) - expected)
    assert np.all(error <= 1.01 * rounding * np.abs(expected) + 2**-20 * magnitudes)


@pytest.mark.parametrize("name", ["mma_bf16", "dpas8_bf16"])
def test_rounded_operands_keep_what_is_not_finite(name):
    """NaN of any bits, infinity, and what rounds to it."""
    a = np.ones((6, 8), np.float32)
    a[:4, 0] = np.array([0x7FFFFFFF, 0xFF800001, 0x7F800000, 0xFF7FFFFF], np.uint32).view("f4")
    spec = product(6, 4, 8, constant=False)
    kernel = matmul.emit(spec, tile_of(name), GPU)
    (got,) = run_kernel(kernel, [a, np.ones((8, 4), np.float32)], [((6, 4), "float32")])
    expected = [np.nan, np.nan, np.inf, -np.inf, 8, 8]
    np.testing.assert_array_equal(got, np.repeat(np.float32(expected)[:, None], 4, 1))


# Float32's results by sums of smaller numbers: of two TF32, and of three bfloat16.
EXACT = {
    "3xtf32": tile_of("mma_3xtf32", (8, 8, 4, 8, 32)),
    "bf16x3": tile_of("dpas8_bf16x3", (4, 16, 8, 4, 32)),
}
PLAIN_TILE = LocalTile(4, 4, 4, 4, unroll=1)
exact = pytest.mark.parametrize("how", EXACT)


def both(how, a, b):
    """a @ b by sums of terms and by multiply-adds of float32."""
    spec = product(a.shape[0], b.shape[1], a.shape[1], constant=False)
    shape = [((a.shape[0], b.shape[1]), "float32")]
    tiles = EXACT[how], PLAIN_TILE
    return [run_kernel(matmul.emit(spec, t, GPU), [a, b], shape)[0] for t in tiles]


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
@exact
def test_sums_of_terms_are_as_good_as_float32(how, kind, k):
    """No more than what the multiply-adds of a float32 kernel are off by, or than ten roundings of
    the sum of magnitudes; the emulation rounds an instruction's sums towards zero.
    """
    a, b = hard(kind, (24, k)), np.ascontiguousarray(hard(kind, (20, k)).T)
    got, plain = (off(found, a, b) for found in both(how, a, b))
    assert got <= max(plain, 10 * 2**-24)


@exact
def test_sums_of_terms_keep_what_is_not_finite(how):
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
    got, plain = both(how, a, b)
    assert not np.isfinite(plain).all()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(plain))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(plain))
    np.testing.assert_allclose(got, plain, rtol=1e-3, atol=1e-4)


@exact
def test_subnormal_operands_lose_what_the_terms_have_not(how):
    """The rest of an operand below 2^-113 has no bits in TF32: an absolute error of 2^-136."""
    a = np.float32(2.0**-130) * rng.standard_normal((8, 64), np.float32)
    b = rng.standard_normal((64, 8), np.float32)
    got, _ = both(how, a, b)
    expected = a.astype(float) @ b.astype(float)
    assert np.max(np.abs(got - expected)) <= 2.0**-135 * np.abs(b).sum(0).max()


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "3xtf32") for name in ("3x3", "few channels", "grouped", "one tap")),
     ("3x3", "bf16x3")],
)  # fmt: skip
def test_convolutions_of_several_terms(name, how):
    """As exact as float32's; one infinite input makes the results infinite or NaN that see it."""
    one_tap = Window(32, 21, (5, 4), (3, 3), pads=(1, 1, 1, 1))
    window = {**PLAIN, "one tap": one_tap}[name]
    target = GPU._replace(precision=how, matrix_units=(EXACT[how].unit,))
    check(window, target, tile=GpuTile(EXACT[how], not window.constant))
    check(window, target, tile=GpuTile(EXACT[how], not window.constant), infinite=True)


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "given"])
@pytest.mark.parametrize("name", ["3x3", "few channels", "grouped", "one tap"])
def test_convolutions(name, constant):
    """Weights rounded once, or packed by a launch; windows that begin in the padding."""
    one_tap = Window(32, 21, (5, 4), (3, 3), pads=(1, 1, 1, 1))
    window = replace({**PLAIN, "one tap": one_tap}[name], constant=constant)
    target = GPU._replace(precision="f16", matrix_units=("mma_f16" + EMULATED,))
    cut = tile_of("mma_f16")
    check(window, target, tolerance=2e-2, tile=GpuTile(cut, not constant))


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"), [("mfma_f32", "f32", 1e-4), ("dpas16_f16", "f16", 2e-2)]
)
def test_convolutions_by_other_layouts(name, precision, tolerance):
    target = GPU._replace(precision=precision, matrix_units=(name + EMULATED,))
    check(PLAIN["3x3"], target, tolerance=tolerance, tile=GpuTile(tile_of(name), False))


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


def units_of(*facts):
    return [name.partition("_")[0] for name in available(*facts) if "f16" in name.split("_")]


def test_devices_say_what_they_have():
    dpas = {"cl_intel_subgroup_matrix_multiply_accumulate"}
    assert units_of((9, 0), "NVIDIA H200", ()) == ["mma"]
    assert units_of((0, 0), "gfx90a:sramecc+:xnack-", ()) == ["mfma"]
    assert units_of((0, 0), "gfx942", ()) == ["mfma"]
    assert units_of((0, 0), "gfx1102", ()) == ["wmma"]
    assert units_of((0, 0), "Intel(R) Arc(TM) A770 Graphics", dpas, (8, 16, 32)) == ["dpas8"]
    assert units_of((0, 0), "Intel(R) Arc(TM) B580 Graphics", dpas, (16, 32)) == ["dpas16"]
    assert available((0, 0), "gfx1030", ()) == ("sdot4_s8", "sdot4_u8")
    assert available((7, 5), "NVIDIA T4", ()) == ("dp4a_s8", "dp4a_u8")
    for name in ("gfx900", "gfx1201", "Intel(R) UHD Graphics", "cpu-skylake"):
        assert not available((0, 0), name, (), (8, 16, 32))


@pytest.mark.parametrize(
    ("name", "dtype", "precision", "unit"),
    [
        ("gfx90a", "float32", "f32", "mfma_f32"),
        ("gfx90a", "float32", "3xtf32", "mfma_f32"),
        ("gfx90a", "float32", "f16", "mfma_f16_flushing"),
        ("gfx90a", "float16", "f32", "mfma_f32"),
        ("gfx90a", "float16", "f16", "mfma_f16_flushing"),
        ("gfx90a", "bfloat16", "f32", "mfma_bf16"),
        ("gfx942", "float16", "f32", "mfma_f16"),
        ("gfx1100", "float32", "f32", None),
        ("gfx1100", "float16", "f32", "wmma_f16"),
        ("gfx1100", "float32", "bf16", "wmma_bf16"),
    ],
)
def test_storage_and_hint_choose_the_unit_of_amd(name, dtype, precision, unit):
    """Halves that the unit takes for zero are not lost unless they are asked for."""
    target = GPU._replace(
        max_work_group=256, local_mem=65536, dialect="amd", architecture=name, compute_units=104,
        matrix_units=available((0, 0), name, ()), precision=precision,
    )  # fmt: skip
    made = entries(product(4096, 768, 768, dtype), target)
    assert made[0].startswith(f"matmul_{unit}_" if unit else "matmul_local_")


INTEL = NVIDIA._replace(
    compute_units=512, dialect="intel", subgroup_sizes=(8, 16, 32), local_mem=65536, vendor="intel",
    matrix_units=available((), "", (DPAS,), (8, 16, 32)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "precision", "unit"),
    [
        ((4096, 768, 768), "f32", "shuffled_f32"),
        ((4096, 768, 768), "bf16x3", "dpas8_bf16x3"),
        ((4096, 768, 768), "bf16", "dpas8_bf16"),
        ((128, 768, 768), "bf16x3", "shuffled_f32"),  # few groups: less to make of operands
        ((4096, 768, 16), "bf16x3", "shuffled_f32"),  # a short sum
    ],
)
def test_sizes_choose_between_units_of_the_same_results(sizes, precision, unit):
    made = entries(product(*sizes), INTEL._replace(precision=precision))
    assert made[0].startswith(f"matmul_{unit}_")


@pytest.mark.parametrize(("left", "unit"), [("int8", "mma_s8"), ("uint8", "mma_u8")])
def test_integers_of_8_bits_have_a_unit_of_their_own(left, unit):
    shape = (dense(left, (4096, 768)), dense("int8", (768, 768)))
    spec = MatmulSpec(True, identity("int32"), shape, (dense("int32", (4096, 768)),))
    assert entries(spec, NVIDIA)[0].startswith(f"matmul_{unit}_")
    assert entries(spec, NVIDIA._replace(precision="f16"))[0].startswith(f"matmul_{unit}_")


@pytest.mark.parametrize(("left", "unit"), [("int8", "mma_s8"), ("uint8", "mma_u8")])
def test_so_do_convolutions_of_them(left, unit):
    x = np.zeros((8, 28, 28, 128), left)
    spec, _ = conv_spec(x[:, :1, :1], np.zeros((128, 128, 1, 1), np.int8), 3, (1, 1), (0,) * 4, 1)
    out = dense("int32", (8, 28, 28, 128))
    spec = replace(spec, ins=(dense(left, x.shape), spec.ins[1]), outs=(out,))
    kernel = emit_best(spec, NVIDIA)
    assert kernel.launches[0].entry.startswith(f"conv_{unit}_")


@pytest.mark.parametrize(
    ("name", "named", "zero", "is_split"),
    [
        ("mma_u8", "3x3, odd channels, odd padding", 131, False),
        ("mma_s8", "groups of whole ints", -3, True),
        ("dp4a_u8", "3x3", 0, False),
        ("mfma_u8", "1x1 with steps", 7, False),
    ],
)
def test_convolutions_of_bytes_are_exact(name, named, zero, is_split):
    """Padding stands for the zero point, which sums lack until their end."""
    shape, weights, *window = CONVOLUTIONS[named]
    x, w = numbers(MATRIX_UNITS[name].operand, *shape), numbers("int8", *weights)
    spec, wanted = conv_spec(x, w, zero, *window)
    kernel = conv.emit(spec, GpuTile(replace(tile_of(name), is_split=is_split)), GPU)
    (got,) = run_kernel(kernel, [x, w], [(wanted.shape, "int32")])
    np.testing.assert_array_equal(got, wanted)


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
    tile = Sized(*(tile_of(f"mma_{precision}") for _ in range(2)),
                 candidates(spec, target)[0].few)  # fmt: skip
    a, b = (rng.standard_normal(s, np.float32) for s in ((rows, 200), (200, 36)))
    kernel = matmul.emit(spec, tile, target)
    (got,) = run_kernel(kernel, [a, b], [((rows, 36), "float32")], {"rows": rows})
    assert off(got, a, b) <= BOUNDS[{"f16": "float16", "bf16": "bfloat16"}[precision]]
