"""What is chosen for products on GPUs, by sizes and by device, and that conditions exclude."""

from __future__ import annotations

from math import ceil, prod

import numpy as np
import pytest
from harness import TARGETS, run_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels import matmul
from clinfer_kernels.contraction.few_tiles import FewRows
from clinfer_kernels.contraction.tiles import LocalTile, Sized
from clinfer_kernels.dims import evaluate, sym
from clinfer_kernels.expr import identity
from clinfer_kernels.families import candidates, emit_best
from clinfer_kernels.spec import Target, dense
from clinfer_kernels.specs import MatmulSpec

NVIDIA = Target(
    cls="gpu", compute_units=132, max_work_group=1024, local_mem=49152, dialect="nvidia"
)
GPU = TARGETS["gpu"]
rng = np.random.default_rng(5)


def product(m, n, k, dtype="float32", constant=True):
    ins = (dense(dtype, (m, k)), dense(dtype, (k, n)))
    return MatmulSpec(constant, identity(dtype), ins, (dense(dtype, (m, n)),))


def running(kernel, **sizes):
    """The launches that run for sizes."""
    return [launch for launch in kernel.launches if evaluate(launch.when, sizes)]


def groups(launch, **sizes):
    shape = [evaluate(d, sizes) for d in launch.global_size]
    return prod(shape) // prod(launch.local_size)


SYMBOLIC = emit_best(product(sym("rows"), 768, 768), NVIDIA)


@pytest.mark.parametrize(
    ("rows", "begins"),
    [
        (1, ["matmul_rows_4", "matmul_sum_parts"]),
        (128, ["matmul_local_64x64_split", "matmul_sum_parts"]),
        (4096, ["matmul_local_"]),
        (1 << 16, ["matmul_local_128x128"]),
    ],
)
def test_sizes_of_a_run_choose_the_schedule(rows, begins):
    entries = [launch.entry for launch in running(SYMBOLIC, rows=rows)]
    assert len(entries) == len(begins)
    assert all(e.startswith(b) for e, b in zip(entries, begins, strict=True)), entries


@given(st.integers(1, 1 << 17))
@settings(deadline=None)
def test_one_schedule_runs_for_every_size(rows):
    products = [x for x in running(SYMBOLIC, rows=rows) if "sum_parts" not in x.entry]
    assert len(products) == 1


@pytest.mark.parametrize("rows", [64, 100, 128, 200])
def test_few_results_still_keep_the_device_busy(rows):
    """BERT's products for one sentence: seven in ten units have a group."""
    (launch, _) = running(SYMBOLIC, rows=rows)
    assert groups(launch, rows=rows) >= 0.7 * NVIDIA.compute_units


def test_known_sizes_have_one_schedule():
    assert len(emit_best(product(1 << 14, 1024, 1024), NVIDIA).launches) == 1


@pytest.mark.parametrize(
    ("engines", "widths", "cores"), [(512, (8, 16, 32), 32), (160, (16, 32), 20)]
)
def test_intel_counts_vector_engines(engines, widths, cores):
    """An Arc A770 has 32 Xe cores of 16 engines, a B580 20 of 8."""
    target = Target(cls="gpu", compute_units=engines, subgroup_sizes=widths, dialect="intel")
    assert target.group_units == cores


def test_only_pocl_is_given_short_grids():
    rows = 1 << 20
    for dialect, most in (("nvidia", ceil(rows / 128) * 256), ("pocl", 65535)):
        target = NVIDIA._replace(dialect=dialect)
        (launch,) = emit_best(product(rows, 64, 64), target).launches
        items = evaluate(launch.global_size[0], {})
        assert items <= 65535 if dialect == "pocl" else items >= most // 2


def test_intel_and_wide_sums_keep_small_tiles():
    """8 x 8 sums of a work-item do not fit into the registers (docs/kernels-checked.md)."""
    intel = NVIDIA._replace(dialect="intel", compute_units=512)
    for spec, target in (
        (product(4096, 1024, 1024), intel),
        (product(4096, 1024, 1024, "float64"), NVIDIA),
    ):
        tiles = [t for t in candidates(spec, target) if isinstance(t, LocalTile)]
        assert tiles and all(t.rows * t.cols <= 32 for t in tiles)


# -- results -------------------------------------------------------------------------------------

TILES = (
    LocalTile(4, 4, 4, 4, unroll=1),
    LocalTile(4, 4, 4, 4, unroll=1, is_split=True),
    LocalTile(8, 8, 8, 8, unroll=1, unit="fma_pairs"),
    FewRows(4, 4, 4, is_split=True),
)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 140),
    st.booleans(),
    st.sampled_from(TILES),
)
@settings(max_examples=25, deadline=None)
def test_every_size_is_right(m, n, k, transposed, tile):
    """Around and between the edges of tiles and of vectors; B as [K, N] or as [N, K]."""
    a = rng.standard_normal((m, k), np.float32)
    b = rng.standard_normal((n, k) if transposed else (k, n), np.float32)
    spec = product(m, n, k, constant=False)
    if transposed:
        view = dense("float32", (n, k))
        ins = (spec.ins[0], view._replace(shape=(k, n), strides=(1, k)))
        spec = MatmulSpec(False, spec.epilogue, ins, spec.outs)
    kernel = matmul.emit(spec, tile, GPU)
    (got,) = run_kernel(kernel, [a, b], [((m, n), "float32")])
    expected = a.astype(float) @ (b.T if transposed else b).astype(float)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_parts_give_the_same_bits_in_every_run():
    a, b = (rng.standard_normal(s, np.float32) for s in ((16, 640), (640, 16)))
    kernel = matmul.emit(product(16, 16, 640), TILES[1], GPU)
    assert len(kernel.launches) == 2
    first, second = (run_kernel(kernel, [a, b], [((16, 16), "float32")])[0] for _ in "12")
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("rows", [1, 3, 17, 70, 300])
def test_a_program_for_every_size_is_in_the_plan(rows):
    """One kernel of unknown rows: whatever runs is right."""
    spec = product(sym("rows"), 36, 200)
    tile = candidates(spec, GPU)[0]
    assert isinstance(tile, Sized)
    a, b = (rng.standard_normal(s, np.float32) for s in ((rows, 200), (200, 36)))
    kernel = matmul.emit(spec, tile, GPU)
    (got,) = run_kernel(kernel, [a, b], [((rows, 36), "float32")], {"rows": rows})
    np.testing.assert_allclose(got, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-4)
