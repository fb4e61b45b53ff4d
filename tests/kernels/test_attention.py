"""The attention family against NumPy: every schedule, views, masks, causality, grouped heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, dtype_name, numpy_dtype, run_kernel, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from clinfer_kernels import attention
from clinfer_kernels.attention_rows import RowTile
from clinfer_kernels.attention_tiles import LocalTile
from clinfer_kernels.dims import evaluate, sym
from clinfer_kernels.spec import Target, Tensor, dense, row_major
from clinfer_kernels.specs import AttentionSpec

Array = np.ndarray[Any, Any]
BOTH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
CPU = TARGETS["cpu"]
rng = np.random.default_rng(11)


@dataclass(frozen=True)
class Case:
    """Views q, k, v [B, H, S, D] with the buffers behind them."""

    q: Array
    k: Array
    v: Array
    bases: tuple[Array, ...]
    mask: Array | None = None
    causal: bool = False
    scale: float = 0.25
    dtype: str = "float32"
    zeroed: str = ""
    spec: AttentionSpec = field(init=False)

    def __post_init__(self) -> None:
        views = [self.q, self.k, self.v]
        if self.mask is not None:
            views.append(np.broadcast_to(self.mask, (*self.q.shape[:3], self.k.shape[2])))
        ins = tuple(view_of(v, b) for v, b in zip(views, self.bases, strict=True))
        outs = (dense(self.dtype, (*self.q.shape[:3], self.v.shape[3])),)
        masked = self.mask is not None
        spec = AttentionSpec(self.scale, self.causal, masked, ins, outs, self.zeroed)  # type: ignore[arg-type]
        object.__setattr__(self, "spec", spec)

    def run(self, tile: attention.Tile, target: Target) -> Array:
        kernel = attention.emit(self.spec, tile, target)
        shape = (*self.q.shape[:3], self.v.shape[3])
        return run_kernel(kernel, self.bases, [(shape, self.dtype)])[0]

    @property
    def expected(self) -> Array:
        """The textbook formula in float64."""
        q, k, v = (x.astype(np.float64) for x in (self.q, self.k, self.v))
        group = q.shape[1] // k.shape[1]
        k, v = (np.repeat(x, group, axis=1) for x in (k, v))
        scores = q @ k.swapaxes(-1, -2) * self.scale
        if self.mask is not None and self.mask.dtype == bool:
            scores = np.where(self.mask, scores, -np.inf)
        elif self.mask is not None:
            scores = scores + self.mask.astype(np.float64)
        if self.causal:
            queries, keys = scores.shape[-2:]
            last = np.arange(queries)[:, None] + (keys - queries)
            scores = np.where(np.arange(keys) <= last, scores, -np.inf)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            if self.zeroed:
                weights = np.where(np.isnan(weights), 0, weights)
            return weights @ v


def projections(batch: int, heads: int, kv: int, queries: int, keys: int, depth: int) -> Case:
    """q, k, v as a model has them: [B, S, H * D] projections, seen as [B, H, S, D]."""
    bases = [
        rng.standard_normal((batch, n, h * depth)).astype(np.float32)
        for n, h in ((queries, heads), (keys, kv), (keys, kv))
    ]
    views = [x.reshape(*x.shape[:2], -1, depth).swapaxes(1, 2) for x in bases]
    return Case(views[0], views[1], views[2], tuple(bases))


def with_mask(case: Case, mask: Array, causal: bool = False) -> Case:
    """The case with a mask and, if wanted, causality."""
    return Case(case.q, case.k, case.v, (*case.bases, mask), mask, causal)


def assert_close(got: Array, expected: Array, tolerance: float = 4e-6) -> None:
    """Same NaNs, and the error at most `tolerance` of the largest value."""
    assert got.shape == expected.shape
    values = got.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    worst = float(np.nanmax(np.abs(values - expected), initial=0.0))
    assert worst <= tolerance * scale, f"error {worst} of {scale}"


def schedules(case: Case, target: Target) -> Sequence[attention.Tile]:
    """One candidate of each schedule."""
    found: dict[type, attention.Tile] = {}
    for tile in attention.candidates(case.spec, target):
        found.setdefault(type(tile), tile)
    return list(found.values())


@BOTH
def test_odd_sizes_through_every_candidate(target: Target) -> None:
    case = projections(2, 3, 3, 19, 101, 20)
    for tile in attention.candidates(case.spec, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
@pytest.mark.parametrize("depth", [32, 64, 80])
def test_head_sizes_with_grouped_heads_and_causality(target: Target, depth: int) -> None:
    base = projections(1, 4, 2, 37, 50, depth)
    case = Case(base.q, base.k, base.v, base.bases, causal=True, scale=1 / math.sqrt(depth))
    for tile in schedules(case, target)[:1]:
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_additive_mask_of_queries_and_keys(target: Target) -> None:
    base = projections(2, 2, 2, 21, 33, 8)
    case = with_mask(base, rng.standard_normal((2, 1, 21, 33)).astype(np.float32))
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_padding_mask_and_a_row_without_keys(target: Target) -> None:
    """Large finite numbers give the softmax of the rounded sums, a row of -inf gives NaN."""
    base = projections(3, 2, 2, 18, 40, 8)
    mask = np.zeros((3, 1, 1, 40), np.float32)
    mask[0, ..., 25:] = -np.inf
    mask[1, ..., :] = np.finfo(np.float32).min
    mask[2, ..., :] = -np.inf
    case = with_mask(base, mask)
    expected = case.expected
    keys = base.v[1].astype(np.float64)
    expected[1] = keys.mean(axis=1, keepdims=True)  # every sum rounds to the same number
    assert np.isnan(expected[2]).all()
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), expected)


@BOTH
def test_boolean_mask_with_causality(target: Target) -> None:
    base = projections(1, 2, 1, 30, 30, 16)
    mask = rng.random((1, 2, 30, 30)) < 0.7
    mask[..., 0] = True
    case = with_mask(base, mask, causal=True)
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_leading_keys_masked_for_longer_than_a_block(target: Target) -> None:
    """The running maximum stays -inf over whole blocks before the first key that counts."""
    base = projections(1, 1, 1, 5, 230, 8)
    mask = np.zeros((1, 1, 5, 230), np.float32)
    mask[..., :210] = -np.inf
    case = with_mask(base, mask)
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_values_of_another_size_and_an_output_view(target: Target) -> None:
    """Dv differs from D; the result is written as [B, S, H * Dv]."""
    sizes = ((13, 12), (27, 12), (27, 22))
    bases = [rng.standard_normal((2, 3, n, d)).astype(np.float32) for n, d in sizes]
    case = Case(bases[0], bases[1], bases[2], tuple(bases))
    strides = row_major((2, 13, 3, 22))
    out = Tensor("float32", (2, 3, 13, 22), (strides[0], strides[2], strides[1], 1))
    spec = AttentionSpec(case.scale, False, False, case.spec.ins, (out,))
    for tile in schedules(case, target):
        kernel = attention.emit(spec, tile, target)
        (got,) = run_kernel(kernel, case.bases, [((2, 13, 3, 22), "float32")])
        assert_close(got.swapaxes(1, 2), case.expected)


@BOTH
def test_strided_depth_and_keys_stored_transposed(target: Target) -> None:
    q = rng.standard_normal((1, 2, 9, 24)).astype(np.float32)
    k = rng.standard_normal((1, 2, 12, 17)).astype(np.float32)
    v = rng.standard_normal((1, 2, 17, 24)).astype(np.float32)
    views = (q[..., ::2], k.swapaxes(-1, -2), v[..., 1::2])
    case = Case(*views, (q, k, v))
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_symbolic_sizes_share_one_text(target: Target) -> None:
    batch, queries, keys = sym("b"), sym("q"), sym("k")
    ins = [dense("float32", (batch, 2, n, 16)) for n in (queries, keys, keys)]
    mask = Tensor("float32", (batch, 2, queries, keys), (keys, 0, 0, 1))
    outs = (dense("float32", (batch, 2, queries, 16)),)
    spec = AttentionSpec(0.25, False, True, (*ins, mask), outs)
    tile = attention.candidates(spec, target)[0]
    kernel = attention.emit(spec, tile, target)
    for b, q, k in ((1, 5, 7), (2, 40, 70)):
        bases = [rng.standard_normal((b, 2, n, 16)).astype(np.float32) for n in (q, k, k)]
        masks = rng.standard_normal((b, 1, 1, k)).astype(np.float32)
        case = Case(*bases, (*bases, masks), masks)  # type: ignore[misc]
        shape = (b, 2, q, 16)
        sizes = {"b": b, "q": q, "k": k}
        (got,) = run_kernel(kernel, case.bases, [(shape, "float32")], sizes)
        assert_close(got, case.expected)


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(target: Target, dtype: str) -> None:
    bases = [rng.standard_normal((1, 2, n, 24)).astype(numpy_dtype(dtype)) for n in (20, 30, 30)]
    case = Case(bases[0], bases[1], bases[2], tuple(bases), dtype=dtype)
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float64": 1e-14}[dtype]
    for tile in schedules(case, target):
        got = case.run(tile, target)
        assert dtype_name(got) == dtype
        assert_close(got, case.expected, tolerance)


def test_unknown_head_sizes_go_to_the_plain_schedule() -> None:
    depth = sym("d")
    ins = tuple(dense("float32", (1, 2, n, depth)) for n in (6, 9, 9))
    spec = AttentionSpec(0.5, False, False, ins, (dense("float32", (1, 2, 6, depth)),))
    (tile,) = attention.candidates(spec, CPU)
    assert isinstance(tile, RowTile)
    for size in (3, 130):
        bases = [rng.standard_normal((1, 2, n, size)).astype(np.float32) for n in (6, 9, 9)]
        case = Case(bases[0], bases[1], bases[2], tuple(bases), scale=0.5)
        kernel = attention.emit(spec, tile, CPU)
        (got,) = run_kernel(kernel, bases, [((1, 2, 6, size), "float32")], {"d": size})
        assert_close(got, case.expected)


def test_few_queries_prefer_the_plain_schedule() -> None:
    case = projections(1, 2, 2, 1, 40, 64)
    tile = attention.candidates(case.spec, CPU)[0]
    assert isinstance(tile, RowTile)
    assert_close(case.run(tile, CPU), case.expected)


def test_integers_are_refused() -> None:
    ins = tuple(dense("int32", (1, 1, 4, 8)) for _ in range(3))
    spec = AttentionSpec(1.0, False, False, ins, (dense("int32", (1, 1, 4, 8)),))
    assert attention.candidates(spec, CPU) == ()


def test_gpu_tiles_keep_the_devices_limits() -> None:
    small = Target(cls="gpu", max_work_group=64, local_mem=16384)
    case = projections(1, 1, 1, 9, 20, 64)
    tiles = attention.candidates(case.spec, small)
    local = [t for t in tiles if isinstance(t, LocalTile)]
    assert local
    assert all(t.work_group <= 64 and t.local_bytes(4) <= 16384 for t in local)
    assert_close(case.run(local[0], small), case.expected)


GPU = TARGETS["gpu"]


@BOTH
@pytest.mark.parametrize("zeroed", ["empty", "nan"])
def test_rows_without_keys_are_zero_where_that_is_asked_for(target: Target, zeroed: str) -> None:
    base = projections(2, 2, 2, 9, 70, 8)
    mask = np.where(rng.random((2, 1, 9, 70)) < 0.5, 0, -np.inf).astype(np.float32)
    mask[0, 0, 3] = -np.inf
    mask[1] = -np.inf
    case = replace(base, bases=(*base.bases, mask), mask=mask, zeroed=zeroed)
    assert (case.expected[1] == 0).all()
    for tile in schedules(case, target):
        assert_close(case.run(tile, target), case.expected)


@BOTH
def test_what_counts_as_a_row_without_keys(target: Target) -> None:
    """An infinite score makes weights NaN: a guard against NaN makes those 0, one of rows without
    keys leaves them. A NaN among the values stays."""
    base = projections(1, 1, 1, 4, 20, 8)
    base.q[0, 0, 1] = np.inf
    base.v[0, 0, :, 5] = np.nan
    for zeroed in ("nan", "empty"):
        case = replace(base, zeroed=zeroed)
        for tile in schedules(case, target):
            got = case.run(tile, target)
            kept = [0, 2, 3] if zeroed == "nan" else [0, 1, 2, 3]
            assert np.isnan(got[0, 0, kept, 5]).all()
            assert np.isnan(got[0, 0, 1]).all() == (zeroed == "empty")
            assert zeroed == "empty" or (got[0, 0, 1] == 0).all()


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(("heads", "kv"), [(2, 2), (4, 1)])
def test_few_queries_share_out_many_keys(queries: int, heads: int, kv: int) -> None:
    base = projections(2, heads, kv, queries, 1000, 64)
    causal = replace(base, causal=True, scale=0.125)
    tile = attention.candidates(causal.spec, GPU)[0]
    assert isinstance(tile, LocalTile)
    assert tile.split == (queries * heads // kv <= 8)
    got = causal.run(tile, GPU)
    assert_close(got, causal.expected)
    np.testing.assert_array_equal(got, causal.run(tile, GPU))


def test_parts_without_a_key_do_not_count() -> None:
    """The first part of the keys is masked for one head, all keys for the other."""
    base = projections(1, 2, 2, 2, 700, 16)
    mask = np.zeros((1, 2, 1, 700), np.float32)
    mask[0, 0, :, :300] = -np.inf
    mask[0, 1] = -np.inf
    for zeroed in ("", "nan"):
        case = replace(base, bases=(*base.bases, mask), mask=mask, zeroed=zeroed)
        tile = attention.candidates(case.spec, GPU)[0]
        assert isinstance(tile, LocalTile)
        assert tile.split
        assert_close(case.run(tile, GPU), case.expected)


def test_one_text_decides_by_the_runs_sizes_whether_keys_are_shared_out() -> None:
    batch, queries, past = sym("b"), sym("q"), sym("p")
    keys = past + queries
    ins = [dense("float32", (batch, 2, n, 32)) for n in (queries, keys, keys)]
    out = dense("float32", (batch, 2, queries, 32))
    spec = AttentionSpec(0.25, True, False, tuple(ins), (out,))
    tile = attention.candidates(spec, GPU)[0]
    kernel = attention.emit(spec, tile, GPU)
    first, join = kernel.launches
    for b, q, p, parts in (
        (1, 1, 0, 1),
        (2, 1, 900, 4),
        (1, 5, 600, 3),
        (1, 40, 300, 1),
        (1, 1, 255, 1),
    ):
        sizes = {"b": b, "q": q, "p": p}
        assert (evaluate(join.global_size[0], sizes) > 0) == (parts > 1)
        assert (evaluate(kernel.scratch[0], sizes) > 0) == (parts > 1)
        bases = [rng.standard_normal((b, 2, n, 32)).astype(np.float32) for n in (q, q + p, q + p)]
        case = Case(bases[0], bases[1], bases[2], tuple(bases), causal=True)
        (got,) = run_kernel(kernel, bases, [((b, 2, q, 32), "float32")], sizes)
        assert_close(got, case.expected)
    assert evaluate(first.global_size[0], {"b": 0, "q": 1, "p": 5}) == 0


_SIZES = st.integers(1, 90)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_sizes_views_and_masks(data: st.DataObject) -> None:
    kv, group = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 3), (1, 4)]))
    queries, keys = data.draw(_SIZES), data.draw(st.sampled_from([1, 7, 64, 65, 300, 530]))
    depth = data.draw(st.sampled_from([1, 6, 32, 64, 100]))
    base = projections(2, kv * group, kv, queries, keys, depth)
    shape = data.draw(st.sampled_from([None, (2, 1, 1, keys), (1, kv * group, queries, keys)]))
    case = replace(base, causal=data.draw(st.booleans()), scale=1 / math.sqrt(depth))
    if shape is not None:
        mask = rng.standard_normal(shape).astype(np.float32)
        case = replace(case, bases=(*base.bases, mask), mask=mask)
    tile = data.draw(st.sampled_from(attention.candidates(case.spec, GPU)))
    assert_close(case.run(tile, GPU), case.expected)
