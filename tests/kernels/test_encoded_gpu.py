"""Products with weights of few bits on GPUs: every schedule decodes them, against NumPy."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from harness import TARGETS, run_kernel, view_of
from test_matrix_units import NVIDIA

from clinfer_kernels import matmul_encoded, narrow
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.matrix_units import EMULATED
from clinfer_kernels.contraction.tiles import LocalTile, Sized
from clinfer_kernels.dims import evaluate, sym
from clinfer_kernels.expr import identity
from clinfer_kernels.families import candidates, emit_best
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import EncodedMatmulSpec

GPU = TARGETS["gpu"]
rng = np.random.default_rng(11)

# By schedule, with what a result may be off by, of the sum of its terms' magnitudes.
FEW = {"one row": FewRows(1, 1, 4), "few rows": FewRows(4, 2, 8)}
TILES = {
    "tile": (LocalTile(4, 4, 4, 4, unroll=1), 1e-6),
    "tile, parts": (LocalTile(4, 4, 4, 4, unroll=1, is_split=True), 1e-6),
    "three terms": (LocalTile(8, 8, 4, 8, 16, unit="mma_3xtf32" + EMULATED), 1e-6),
    "six terms": (LocalTile(4, 16, 8, 4, 16, unit="dpas8_bf16x3" + EMULATED), 1e-6),
    "float16": (LocalTile(8, 8, 4, 8, 16, unit="mma_f16" + EMULATED), 2**-10),
}


class Case(NamedTuple):
    """A product, its buffers, and what it gives."""

    spec: EncodedMatmulSpec
    arrays: tuple[np.ndarray, ...]
    wanted: np.ndarray
    terms: np.ndarray  # the sums of the terms' magnitudes

    def check(self, tile, bound=1e-6, symbols=None):
        kernel = matmul_encoded.emit(self.spec, tile, GPU)
        shape = self.wanted.shape
        (got,) = run_kernel(kernel, self.arrays, [(shape, self.spec.outs[0].dtype)], symbols)
        assert np.max(np.abs(got.astype(float) - self.wanted) / self.terms) <= bound, tile


def case(m, k, n, bits, block, point=None, codes=None, form="integer", dtype="float32", rows=None):
    """`point`: the dtype of zero points; None: the middle of the codes, for all blocks."""
    low = 0 if codes is None or codes.dtype == np.uint8 else -(1 << bits - 1)
    if codes is None:
        codes = rng.integers(0, 1 << bits, (k, n)).astype(np.uint8)
    blocks = k // block
    scales = rng.uniform(0.01, 0.1, (blocks, n)).astype(np.float16)
    a = rng.standard_normal((m, k)).astype(dtype)
    arrays: tuple[np.ndarray, ...] = (a, codes, scales)
    zero = low + (1 << bits - 1) if form == "integer" else 0
    points = np.full((blocks, n), float(zero))
    if point is not None:
        points = rng.uniform(low, low + (1 << bits), (blocks, n)).astype(point)
        arrays = (*arrays, points)
    ins = [view_of(v, v) for v in arrays]
    ins[0] = dense(dtype, (rows or m, k))
    out = dense(dtype, (rows or m, n))
    spec = EncodedMatmulSpec(
        *(block, bits, False, identity(dtype), tuple(ins), (out,), form),
        zero if point is None else None,
    )
    numbers = codes.astype(float)
    if form in narrow.TABLES:
        numbers = np.array(narrow.TABLES[form], np.float32)[codes].astype(float)
    elif form != "integer":
        numbers = codes.view(getattr(ml_dtypes, form)).astype(float)
    spread = (np.repeat(v.astype(float), block, axis=0) for v in (points, scales))
    zeros, scale = spread
    b = (numbers - zeros) * scale
    wide = a.astype(float)
    return Case(spec, arrays, wide @ b, np.abs(wide) @ np.abs(b))


@pytest.mark.parametrize("point", [None, "uint8", "float32"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_few_rows_decode_every_width(bits, point):
    """Rows, columns and words in whole tiles and not; blocks of one word and of several."""
    case(3, 96, 7, bits, 16, point).check(FEW["one row" if bits == 4 else "few rows"])


@pytest.mark.parametrize(
    ("bits", "name"), [(2, "tile"), (8, "tile"), (8, "float16"), *((4, name) for name in TILES)]
)
def test_tiles_decode_every_width(bits, name):
    case(9, 96, 21, bits, 32, "uint8").check(*TILES[name])


@pytest.mark.parametrize("tile", [FEW["few rows"], TILES["tile"][0]], ids=["few", "tile"])
def test_a_column_need_not_fill_its_words(tile):
    """One block of all of K, signed codes, and floats as zero points."""
    codes = rng.integers(-8, 8, (51, 6)).astype(np.int8)
    case(5, 51, 6, 4, 51, "float32", codes).check(tile)


@pytest.mark.parametrize("form", ["nf4", "float4_e2m1fn", "float8_e4m3fn"])
@pytest.mark.parametrize("tile", [FEW["one row"], TILES["tile"][0]], ids=["few", "tile"])
def test_codes_of_numbers_are_decoded(form, tile):
    bits = 8 if "8" in form else 4
    codes = rng.integers(0, 127 if bits == 8 else 16, (32, 5)).astype(np.uint8)
    case(2, 32, 5, bits, 16, None, codes, form).check(tile)


@pytest.mark.parametrize(("dtype", "unit"), [("float16", "mma_f16"), ("bfloat16", "mma_bf16")])
def test_16_bits_are_multiplied_as_they_lie_in_memory(dtype, unit):
    tile = LocalTile(8, 8, 4, 8, 16, unit=unit + EMULATED)
    bound = 2**-10 if dtype == "float16" else 2**-7
    case(9, 64, 12, 4, 32, "uint8", dtype=dtype).check(tile, bound)


def test_infinite_operands_of_three_terms():
    made = case(3, 32, 5, 4, 32, "uint8")
    made.arrays[0][1, 7] = np.inf
    kernel = matmul_encoded.emit(made.spec, TILES["three terms"][0], GPU)
    (got,) = run_kernel(kernel, made.arrays, [((3, 5), "float32")])
    assert not np.isfinite(got[1]).any()
    assert np.max(np.abs(got - made.wanted)[::2] / made.terms[::2]) <= 1e-6


def test_rows_of_a_run_choose_the_schedule():
    few = (FewRows(1, 2, 4), FewRows(4, 2, 4))
    tile = LocalTile(4, 4, 4, 4, unroll=1)
    for rows in (1, 2, 9, 40):
        made = case(rows, 64, 12, 4, 32, rows=sym("rows"))
        made.check(Sized(tile, tile, few), symbols={"rows": rows})


@pytest.mark.parametrize(
    ("precision", "rows", "entry"),
    [
        ("3xtf32", 1, "matmul_rows_1x8_q4"),
        ("3xtf32", 8, "matmul_rows_8x32_q4"),
        ("3xtf32", 32, "matmul_rows_8x32_q4"),
        ("3xtf32", 500, "matmul_mma_3xtf32_"),
        ("f16", 8, "matmul_rows_8x32_q4"),
        ("f16", 32, "matmul_mma_f16_"),
    ],
)
def test_few_rows_read_codes_once_and_others_use_units(precision, rows, entry):
    """A language model's product on an H200, for a number of rows that a run gives."""
    ins = (
        dense("float32", (sym("rows"), 4096)),
        dense("uint8", (4096, 4096)),
        dense("float16", (128, 4096)),
    )
    outs = (dense("float32", (sym("rows"), 4096)),)
    spec = EncodedMatmulSpec(32, 4, False, identity("float32"), ins, outs, "integer", 8)
    target = NVIDIA._replace(precision=precision)
    kernel = emit_best(spec, target)
    running = [x.entry for x in kernel.launches if evaluate(x.when, {"rows": rows})]
    assert running[0].startswith(entry), running
    assert len(running) == 1 + ("split" in running[0])
    assert len(candidates(spec, target)) > 1
