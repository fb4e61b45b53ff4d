"""Attention by matrix units, by their emulation: edges, masks, and what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS
from test_attention import Case, assert_close, projections, with_mask

from clinfer_kernels import attention
from clinfer_kernels.attention_matrix_tiles import MatrixTile
from clinfer_kernels.contraction.chained import sources
from clinfer_kernels.contraction.matrix_units import EMULATED, MATRIX_UNITS, available
from clinfer_kernels.contraction.units_intel import DPAS
from clinfer_kernels.dims import sym
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import AttentionSpec

GPU = TARGETS["gpu"]._replace(max_work_group=256, local_mem=49152)
TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 4e-6}
HINTS = {"float16": "f16", "bfloat16": "bf16", "float32": "3xtf32"}
# One of each layout.
LAYOUTS = [
    "mma_bf16",
    "mma_3xtf32",
    "mfma_f16",
    "mfma_f32",
    "wmma_bf16",
    "dpas8_f16",
    "dpas16_bf16",
]


def run(case, name):
    hint = HINTS[MATRIX_UNITS[name].operand]
    target = GPU._replace(precision=hint, matrix_units=(name + EMULATED,))
    tiles = [t for t in attention.candidates(case.spec, target) if isinstance(t, MatrixTile)]
    return case.run(min(tiles, key=lambda tile: (tile.queries, tile.keys)), target)


def agrees(case, name):
    assert_close(run(case, name), case.expected, TOLERANCES[MATRIX_UNITS[name].operand])


@pytest.mark.parametrize("name", LAYOUTS)
def test_odd_sizes_and_shared_heads(name):
    agrees(projections(2, 4, 2, 19, 45, 20), name)


@pytest.mark.parametrize("name", ["mma_f16", "mfma_f32", "wmma_f16", "dpas8_f16", "dpas16_bf16"])
def test_larger_heads(name):
    agrees(projections(1, 1, 1, 33, 70, 80), name)


@pytest.mark.parametrize("name", ["mma_f16", "mfma_f16", "dpas8_f16"])
def test_masks_causality_and_rows_that_see_nothing(name):
    """A mask by key, and one by query and key of which nothing is left in a row."""
    rng = np.random.default_rng(2)
    case = projections(1, 2, 2, 37, 37, 16)
    padding = np.where(np.arange(37) < 30, 0, -np.inf).astype(np.float32)[None, None, None]
    scores = rng.standard_normal((1, 1, 37, 37)).astype(np.float32)
    scores[..., 5, :] = -np.inf
    for masked in (with_mask(case, padding), with_mask(case, scores, causal=True)):
        agrees(masked, name)


def test_infinite_and_missing_numbers():
    """An infinite key or value is felt where float32 feels it, and nowhere else."""
    case = projections(1, 1, 1, 9, 20, 16)
    q, k, v = case.bases
    q[0, :, 3] = np.abs(q[0, :, 3])
    k[0, 4, 3] = -np.inf  # weight 0
    v[0, 7, 2], v[0, 8, 5], v[0, 9, 6] = np.inf, -np.inf, np.nan
    q[0, 8, 0] = np.nan
    got, expected = run(case, "mma_3xtf32")[0, 0], case.expected[0, 0]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(got[finite], expected[finite], 1e-5, 1e-5)


def spec(queries, keys, head=64, dtype="float32"):
    ins = [dense(dtype, (1, 12, n, head)) for n in (queries, keys, keys)]
    return AttentionSpec(0.125, False, False, tuple(ins), (dense(dtype, (1, 12, queries, head)),))


NVIDIA = Target(
    cls="gpu",
    compute_units=132,
    max_work_group=1024,
    local_mem=49152,
    dialect="nvidia",
    matrix_units=available((9, 0), "NVIDIA H200", ()),
)


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("mma_f16", "a"),
        ("mma_3xtf32", "a"),
        ("mfma_f32", "a"),
        ("mfma_f16", ""),  # whose columns are woven; attention's are not
        ("wmma_f16", ""),
        ("shuffled_f32", "b"),
        ("dpas8_f16", "b"),
        ("dpas16_bf16", "b"),
    ],
)
def test_which_operands_a_lane_has_of_its_results(name, operands):
    unit = MATRIX_UNITS[name]
    assert "".join(n for n in "ab" if sources(unit, unit, n, (1, 64))) == operands


AMD = NVIDIA._replace(
    dialect="amd",
    max_work_group=256,
    local_mem=65536,
    matrix_units=available((), "gfx942", ()),
)
INTEL = AMD._replace(dialect="intel", matrix_units=available((), "", (DPAS,), (8, 16)))


@pytest.mark.parametrize(
    ("target", "hint", "kind", "path"),
    [
        (NVIDIA, "f16", "mma_f16", "kept"),
        (AMD, "f32", "mfma_f32", "kept"),
        (AMD, "bf16", "mfma_bf16", "kept"),
        (INTEL, "f16", "dpas8_f16", "turned"),
        (INTEL, "f32", None, None),  # shuffled_f32 spills
    ],
)
def test_weights_stay_where_they_are(target, hint, kind, path):
    (tile, *_) = attention.candidates(spec(128, 128), target._replace(precision=hint))
    is_matrix = isinstance(tile, MatrixTile)
    assert ((tile.unit, tile.path) if is_matrix else (None, None)) == (kind, path)


@pytest.mark.parametrize(
    ("given", "precision", "kind"),
    [
        (spec(sym("s"), sym("s")), "3xtf32", "mma_3xtf32"),
        (spec(sym("s"), sym("s")), "f32", None),
        (spec(sym("s"), sym("s"), dtype="float16"), "f32", "mma_f16"),
        (spec(1, sym("s")), "f16", None),  # decoding shares out the keys
        (spec(197, 197, 256), "f16", None),  # results do not fit the registers
    ],
)
def test_what_uses_a_unit(given, precision, kind):
    (tile, *_) = attention.candidates(given, NVIDIA._replace(precision=precision))
    assert (tile.unit if isinstance(tile, MatrixTile) else None) == kind


def test_few_groups_get_smaller_blocks_of_queries():
    target = NVIDIA._replace(precision="f16")
    first = [attention.candidates(spec(n, n), target)[0] for n in (4096, 128)]
    assert first[0].queries > first[1].queries


def test_operands_of_float16_are_multiplied_exactly():
    """Only weights and results are rounded: scores of large numbers keep their differences."""
    case = projections(1, 1, 1, 9, 20, 16)
    bases = [x.astype(np.float16) for x in case.bases]
    views = [x.reshape(1, -1, 1, 16).swapaxes(1, 2) for x in bases]
    half = Case(*views, tuple(bases), scale=7 / 8, dtype="float16")
    assert_close(run(half, "mma_f16"), half.expected, 2e-3)
