"""Products and convolutions of 8-bit integers against NumPy's in int64, by every unit there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, run_kernel, view_of

from clinfer.device.processor import flags, instruction_set
from clinfer_kernels import conv, integer_dot, matmul, matmul_encoded, narrow
from clinfer_kernels.conv_integer import IntegerTile as ConvTile
from clinfer_kernels.expr import Builder, Expr, identity
from clinfer_kernels.matmul_bytes import BytesTile
from clinfer_kernels.matmul_integer import IntegerTile as MatmulTile
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import EncodedMatmulSpec, MatmulSpec, PreparedConvSpec
from clinfer_kernels.terms import Term

Array = np.ndarray[Any, Any]
CPU = TARGETS["cpu"]
HERE = f"skx/{instruction_set()}"
LEVEL = HERE.partition("+")[0]


def _targets() -> dict[str, Target]:
    """Targets by unit, of the units whose instructions this processor has."""
    wanted = [(HERE, 16), (f"{LEVEL}+avx_vnni", 8), (LEVEL, 16), (LEVEL, 8), ("generic", 8)]
    found: dict[str, Target] = {}
    for architecture, lanes in wanted:
        if lanes > CPU.vector_width or ("avx_vnni" in architecture and "avx_vnni" not in flags()):
            continue
        target = CPU._replace(architecture=architecture, vector_width=lanes)
        how = integer_dot.unit(target)
        found.setdefault(f"{how.name}-{how.lanes}", target)
    return found


BY_UNIT = _targets()
UNITS = pytest.mark.parametrize("target", BY_UNIT.values(), ids=BY_UNIT)
# The best unit with both signs, of the others every second one with each.
UNITS_AND_SIGNS = pytest.mark.parametrize(
    ("target", "dtype"),
    [
        pytest.param(target, dtype, id=f"{name}-{dtype}")
        for number, (name, target) in enumerate(BY_UNIT.items())
        for place, dtype in enumerate(("uint8", "int8"))
        if number == 0 or number % 2 == place
    ],
)
SIGNS = pytest.mark.parametrize("dtype", ["uint8", "int8"])
BEST = next(iter(BY_UNIT.values()))
rng = np.random.default_rng(11)


def integers(dtype: str, *shape: int) -> Array:
    """Any numbers, the least and the greatest among them."""
    limits = np.iinfo(dtype)
    made = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    made.reshape(-1)[:2] = (limits.min, limits.max)[: made.size]
    return made


def exact(a: Array, b: Array) -> Array:
    return np.matmul(a.astype(np.int64), b.astype(np.int64)).astype(np.int32)


def run(a: Array, b: Array, target: Target, constant: bool, tile: Any = None) -> list[Array]:
    """The results of `tile`, or of the first candidate of each text."""
    shape = (*a.shape[:-1], b.shape[-1])
    views = (view_of(a, base(a)), view_of(b, base(b)))
    spec = MatmulSpec(constant, identity("int32"), views, (dense("int32", shape),))
    tiles = [tile] if tile else texts(matmul.candidates(spec, target))
    buffers = [base(a), b if constant else base(b)]
    return [run_kernel(matmul.emit(spec, t, target), buffers, [(shape, "int32")])[0] for t in tiles]


def texts(tiles: Sequence[Any]) -> list[Any]:
    """One of the tiles that differ in how work is cut only."""
    found: dict[Any, Any] = {}
    for tile in tiles:
        found.setdefault((type(tile), tile.rows, getattr(tile, "deep", 0)), tile)
    return list(found.values())


def base(view: Array) -> Array:
    return view if view.base is None else view.base


@UNITS_AND_SIGNS
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "dynamic"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (2, 7, 70), (37, 67, 50), (32, 128, 32)])
def test_products_are_exact(
    target: Target, dtype: str, constant: bool, m: int, k: int, n: int
) -> None:
    a, b = integers(dtype, m, k), integers("int8", k, n)
    for result in run(a, b, target, constant):
        np.testing.assert_array_equal(result, exact(a, b))


@SIGNS
@pytest.mark.parametrize("vecs", [1, 3])
@pytest.mark.parametrize("rows", [1, 5])
def test_sizes_around_the_register_tile(dtype: str, rows: int, vecs: int) -> None:
    lanes = integer_dot.unit(BEST).lanes
    tile = MatmulTile(rows, vecs, lanes)
    for m in (rows - 1, rows, rows + 1):
        for n in (vecs * lanes - 1, vecs * lanes, vecs * lanes + 1):
            if m and n:
                a, b = integers(dtype, m, 12), integers("int8", 12, n)
                np.testing.assert_array_equal(run(a, b, BEST, True, tile)[0], exact(a, b))


def test_operands_of_any_strides() -> None:
    a = integers("uint8", 21, 13).T
    b = integers("int8", 2, 40, 21)[1].T
    for result in run(a, b, BEST, False):
        np.testing.assert_array_equal(result, exact(a, b))


def test_a_batch_of_products() -> None:
    a, b = integers("int8", 3, 5, 18), integers("int8", 3, 18, 33)
    for result in run(a, b, BEST, False):
        np.testing.assert_array_equal(result, exact(a, b))


def _quantising(zero: int) -> Expr:
    """clip(round(sum * scale) + zero), with a scale for each column."""
    builder = Builder(["int32", "float32"])
    scaled = Term(builder, 0).cast("float32") * Term(builder, 1)
    moved = scaled.op("round") + float(zero)
    return builder.build(moved.at_least(0.0).at_most(255.0).cast("uint8").number)


@UNITS
def test_the_epilogue_quantises(target: Target) -> None:
    a, b = integers("uint8", 11, 40), integers("int8", 40, 37)
    scale = rng.uniform(1e-4, 1e-2, 37).astype(np.float32)
    columns = view_of(np.broadcast_to(scale, (11, 37)), scale)
    ins = (dense("uint8", (11, 40)), dense("int8", (40, 37)), columns)
    spec = MatmulSpec(True, _quantising(9), ins, (dense("uint8", (11, 37)),))
    wanted = np.clip(np.rint(exact(a, b).astype(np.float32) * scale) + 9, 0, 255)
    for tile in texts(matmul.candidates(spec, target)):
        kernel = matmul.emit(spec, tile, target)
        result = run_kernel(kernel, [a, b, scale], [((11, 37), "uint8")])[0]
        np.testing.assert_array_equal(result, wanted)


# -- convolutions --------------------------------------------------------------------------------


def convolution(
    x: Array, w: Array, zero: int, strides: Sequence[int], pads: Sequence[int], groups: int
) -> Array:
    """Channels last, in int64: sum over taps of (x - zero) * w; padding is 0."""
    rank = x.ndim - 2
    wide = np.pad(
        x.astype(np.int64) - zero, [(0, 0), *zip(pads[:rank], pads[rank:], strict=True), (0, 0)]
    )
    kernel = w.shape[2:]
    out = [(n - k) // s + 1 for n, k, s in zip(wide.shape[1:-1], kernel, strides, strict=True)]
    result = np.zeros((x.shape[0], *out, w.shape[0]), np.int64)
    per, each = w.shape[1], w.shape[0] // groups
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(t, t + (n - 1) * s + 1, s) for t, n, s in zip(tap, out, strides, strict=True)
        )
        seen = wide[(slice(None), *window)]
        for g in range(groups):
            part = w[(slice(g * each, (g + 1) * each), slice(None), *tap)].astype(np.int64)
            result[..., g * each : (g + 1) * each] += seen[..., g * per : (g + 1) * per] @ part.T
    return result.astype(np.int32)


def conv_spec(
    x: Array, w: Array, zero: int, strides: Sequence[int], pads: Sequence[int], groups: int
) -> tuple[PreparedConvSpec, Array]:
    wanted = convolution(x, w, zero, strides, pads, groups)
    builder = Builder([x.dtype.name])
    prologue = builder.build((Term(builder, 0).cast("int32") - zero).number)
    spec = PreparedConvSpec(
        w.shape[2:],
        tuple(strides),
        tuple(pads),
        (1,) * (x.ndim - 2),
        groups,
        True,
        identity("int32"),
        (view_of(x, base(x)), dense("int8", w.shape)),
        (dense("int32", wanted.shape),),
        prologue=prologue,
    )
    return spec, wanted


CONVOLUTIONS = {
    "1x1": ((2, 5, 7, 8), (20, 8, 1, 1), (1, 1), (0,) * 4, 1),
    "1x1 with steps": ((1, 6, 7, 16), (33, 16, 1, 1), (2, 2), (0,) * 4, 1),
    "3x3": ((1, 9, 10, 12), (50, 12, 3, 3), (1, 1), (1,) * 4, 1),
    "3x3, odd channels, odd padding": ((1, 9, 10, 3), (7, 3, 3, 3), (2, 2), (0, 1, 1, 0), 1),
    "groups": ((1, 6, 6, 10), (6, 5, 3, 3), (1, 1), (1,) * 4, 2),
    "groups of whole ints": ((1, 6, 6, 16), (8, 8, 3, 3), (1, 1), (1,) * 4, 2),
    "depthwise": ((1, 9, 11, 37), (37, 1, 3, 3), (1, 1), (1,) * 4, 37),
    "depthwise with steps": ((2, 9, 11, 16), (16, 1, 5, 5), (2, 2), (2,) * 4, 16),
    "for matrix registers": ((1, 7, 9, 128), (40, 128, 1, 1), (1, 1), (0,) * 4, 1),
    "3x3 for matrix registers": ((1, 7, 9, 20), (40, 20, 3, 3), (1, 1), (1,) * 4, 1),
    "groups for matrix registers": ((1, 7, 9, 24), (16, 12, 3, 3), (1, 1), (1,) * 4, 2),
    "along a line": ((2, 30, 6), (9, 6, 5), (3,), (2, 1), 1),
    "in space": ((1, 4, 5, 6, 4), (5, 4, 2, 3, 2), (1, 1, 1), (1, 1, 0, 0, 1, 0), 1),
}


# Every convolution by the best unit with both signs; by the others in turns.
BY_UNIT_AND_SIGN = [
    pytest.param(target, dtype, case, id=f"{named}-{name}-{dtype}")
    for place, (named, case) in enumerate(CONVOLUTIONS.items())
    for number, (name, target) in enumerate(BY_UNIT.items())
    for sign, dtype in enumerate(("uint8", "int8"))
    if number == 0 or (place + number) % 4 == sign
]


@pytest.mark.parametrize(("target", "dtype", "case"), BY_UNIT_AND_SIGN)
def test_convolutions_are_exact(target: Target, dtype: str, case: Any) -> None:
    shape, weights, *rest = case
    x, w = integers(dtype, *shape), integers("int8", *weights)
    for zero in (0, int(np.iinfo(dtype).max)) if target is BEST else (1,):
        spec, wanted = conv_spec(x, w, zero, *rest)
        kernel = conv.emit(spec, conv.candidates(spec, target)[0], target)
        result = run_kernel(kernel, [x, w], [(wanted.shape, "int32")])[0]
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_first_and_the_last_candidate_are_exact(target: Target, case: Any) -> None:
    shape, weights, *rest = case
    x, w = integers("int8", *shape), integers("int8", *weights)
    spec, wanted = conv_spec(x, w, -3, *rest)
    tiles = conv.candidates(spec, target)
    for tile in (tiles[0], tiles[-1]):
        kernel = conv.emit(spec, tile, target)
        result = run_kernel(kernel, [x, w], [(wanted.shape, "int32")])[0]
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize(("rows", "vecs"), [(1, 1), (5, 3)])
def test_pixels_around_the_register_tile(rows: int, vecs: int) -> None:
    lanes = integer_dot.unit(BEST).lanes
    for width in (rows, rows + 1):
        x, w = integers("uint8", 1, 2, width, 4), integers("int8", vecs * lanes + 1, 4, 3, 3)
        spec, wanted = conv_spec(x, w, 5, (1, 1), (1,) * 4, 1)
        tile = ConvTile(rows, vecs, lanes)
        result = run_kernel(conv.emit(spec, tile, BEST), [x, w], [(wanted.shape, "int32")])[0]
        np.testing.assert_array_equal(result, wanted)


# -- weights of few bits -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("m", "blocks", "n"), [(1, 3, 40), (6, 1, 129)])
def test_codes_are_decoded(dtype: str, bits: int, m: int, blocks: int, n: int) -> None:
    block = 16
    low = -(1 << bits - 1) if dtype == "int8" else 0
    codes = rng.integers(low, low + (1 << bits), (blocks * block, n)).astype(dtype)
    zeros = rng.integers(low, low + (1 << bits), (blocks, n)).astype(dtype)
    scales = rng.uniform(0.01, 0.1, (blocks, n)).astype(np.float32)
    a = rng.standard_normal((m, blocks * block)).astype(np.float32)
    arrays = (a, codes, scales, zeros)
    ins = tuple(view_of(v, v) for v in arrays)
    outs = (dense("float32", (m, n)),)
    spec = EncodedMatmulSpec(block, bits, False, identity("float32"), ins, outs)
    spread = (np.repeat(v.astype(np.float64), block, axis=0) for v in (zeros, scales))
    zero, scale = spread
    wanted = a.astype(np.float64) @ ((codes - zero) * scale)
    for tile in matmul_encoded.candidates(spec, CPU):
        kernel = matmul_encoded.emit(spec, tile, CPU)
        result = run_kernel(kernel, arrays, [((m, n), "float32")])[0]
        np.testing.assert_allclose(result, wanted, atol=2e-6 * np.abs(wanted).max() * block)


@pytest.mark.parametrize(
    ("form", "bits"),
    [("nf4", 4), ("fp4", 4), ("float8_e4m3fn", 8), ("float8_e5m2", 8), ("float4_e2m1fn", 4)],
)
def test_codes_of_numbers_are_decoded(form: str, bits: int) -> None:
    """Every code but those of NaN and infinity, with scales in float16 and one zero point."""
    block, n = 16, 40
    every = np.arange(1 << bits, dtype=np.uint8)
    numbers = (
        np.array(narrow.TABLES[form], np.float32)
        if form in narrow.TABLES
        else every.view(getattr(ml_dtypes, form)).astype(np.float32)
    )
    every = every[np.isfinite(numbers[every])]
    codes = rng.choice(every, (2 * block, n))
    codes[:, 0] = np.resize(every, 2 * block)
    scales = rng.uniform(0.01, 0.1, (2, n)).astype(np.float16)
    a = rng.standard_normal((3, 2 * block)).astype(np.float32)
    arrays, outs = (a, codes, scales), (dense("float32", (3, n)),)
    ins = tuple(view_of(v, v) for v in arrays)
    spec = EncodedMatmulSpec(block, bits, False, identity("float32"), ins, outs, form, 0)
    wide = np.repeat(scales.astype(np.float64), block, axis=0)
    wanted = a.astype(np.float64) @ (numbers[codes].astype(np.float64) * wide)
    for tile in matmul_encoded.candidates(spec, CPU):
        kernel = matmul_encoded.emit(spec, tile, CPU)
        result = run_kernel(kernel, arrays, [((3, n), "float32")])[0]
        np.testing.assert_allclose(result, wanted, atol=2e-6 * np.abs(wanted).max() * block)


@UNITS
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("bits", "m", "n"), [(4, 1, 70), (4, 6, 33), (8, 2, 40)])
def test_a_quantised_left_side(target: Target, dtype: str, bits: int, m: int, n: int) -> None:
    if integer_dot.unit(target).name == "plain":
        return
    block, blocks = 32, 3
    low = -(1 << bits - 1) if dtype == "int8" else 0
    codes = rng.integers(low, low + (1 << bits), (blocks * block, n)).astype(dtype)
    zeros = rng.integers(low, low + (1 << bits), (blocks, n)).astype(dtype)
    scales = rng.uniform(0.01, 0.1, (blocks, n)).astype(np.float32)
    a = rng.standard_normal((m, blocks, block)).astype(np.float32)
    a[0, 1] = 0
    largest = np.abs(a).max(-1, keepdims=True)
    steps = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    known = np.rint(a / steps).astype(np.float64) * steps
    flat = a.reshape(m, -1)
    ins = tuple(view_of(v, v) for v in (flat, codes, scales, zeros))
    spec = EncodedMatmulSpec(
        block, bits, True, identity("float32"), ins, (dense("float32", (m, n)),)
    )
    spread = (np.repeat(v.astype(np.float64), block, axis=0) for v in (zeros, scales))
    zero, scale = spread
    decoded = (codes - zero) * scale
    tile = matmul_encoded.candidates(spec, target)[0]
    assert isinstance(tile, BytesTile)
    kernel = matmul_encoded.emit(spec, tile, target)
    result = run_kernel(kernel, (flat, codes, scales, zeros), [((m, n), "float32")])[0]
    step = float(steps.max()) * float(np.abs(decoded).max())
    np.testing.assert_allclose(result, known.reshape(m, -1) @ decoded, atol=2 * step)
    np.testing.assert_allclose(result, flat @ decoded, atol=np.sqrt(block * blocks) * step)


def test_what_is_not_finite_stays_so() -> None:
    a = np.ones((2, 32), np.float32)
    a[0, 5] = np.inf
    arrays = (
        a,
        integers("uint8", 32, 16) & 15,
        np.ones((1, 16), np.float32),
        integers("uint8", 1, 16) & 15,
    )
    ins = tuple(view_of(v, v) for v in arrays)
    spec = EncodedMatmulSpec(32, 4, True, identity("float32"), ins, (dense("float32", (2, 16)),))
    kernel = matmul_encoded.emit(spec, matmul_encoded.candidates(spec, BEST)[0], BEST)
    result = run_kernel(kernel, arrays, [((2, 16), "float32")])[0]
    assert not np.isfinite(result[0]).any()
    assert np.isfinite(result[1]).all()
