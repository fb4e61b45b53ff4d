"""The recurrent family's ways to hold weights and states, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import TARGETS, Array, run_kernel

from clinfer_kernels.expr import Builder
from clinfer_kernels.recurrent import candidates, emit
from clinfer_kernels.spec import dense
from clinfer_kernels.specs import RecurrentSpec
from clinfer_kernels.terms import Term

rng = np.random.default_rng(4)
STEPS, ROWS, HIDDEN, WIDE = 3, 5, 19, 32  # of a group of four rows and one of a row alone


def gru(dtype: str, packed: bool) -> RecurrentSpec:
    builder = Builder([dtype])
    functions = tuple(
        builder.build(number)
        for number in (Term(builder, 0).sigmoid().number, Term(builder, 0).op("tanh").number)
    )
    weights = (1, WIDE // 32, HIDDEN, 3, 32) if packed else (1, 3 * HIDDEN, HIDDEN)
    shapes = [(STEPS, ROWS, 1, 3, WIDE), weights, (1, ROWS, HIDDEN)]
    ins = (*(dense(dtype, s) for s in shapes), dense("int32", (ROWS,)))
    outs = (dense(dtype, (STEPS, 1, ROWS, HIDDEN)), dense(dtype, (1, ROWS, HIDDEN)))
    return RecurrentSpec(
        kind="GRU",
        functions=functions,
        backward_from=1,
        has_state=True,
        has_cells=False,
        has_lengths=True,
        has_peepholes=False,
        packed=packed,
        reset_late=False,
        coupled=False,
        rounds=False,
        clip=0.0,
        ins=ins,
        outs=outs,
    )


def expected(sums: Array, weights: Array, state: Array, lengths: Array) -> Array:
    """The last states."""
    h = state[0] * (lengths > 0)[:, None]
    z_back, r_back, h_back = weights[0].reshape(3, HIDDEN, HIDDEN)
    x = sums[:, :, 0, :, :HIDDEN]
    for t in range(STEPS):
        z = 1 / (1 + np.exp(-(x[t, :, 0] + h @ z_back.T)))
        r = 1 / (1 + np.exp(-(x[t, :, 1] + h @ r_back.T)))
        fresh = np.tanh(x[t, :, 2] + (r * h) @ h_back.T)
        h = np.where((t < lengths)[:, None], (1 - z) * fresh + z * h, h)
    return h


@pytest.mark.parametrize("cls", TARGETS)
@pytest.mark.parametrize(
    ("dtype", "packed", "local_mem"),
    [("float32", True, 1 << 20), ("float32", False, 64), ("float64", True, 64)],
)
def test_states_and_weights_lie_where_there_is_room(
    cls: str, dtype: str, packed: bool, local_mem: int
) -> None:
    """Weights come packed or are constants; states are in local memory or, too many, in global."""
    sums = rng.standard_normal((STEPS, ROWS, 1, 3, WIDE)).astype(dtype)
    weights = rng.standard_normal((1, 3 * HIDDEN, HIDDEN)).astype(dtype) * 0.3
    state = rng.standard_normal((1, ROWS, HIDDEN)).astype(dtype)
    lengths = np.array([3, 0, 2, 1, 3], np.int32)
    spec = gru(dtype, packed)
    target = TARGETS[cls]._replace(local_mem=local_mem)
    given = weights
    if packed:
        given = np.zeros((1, 3, WIDE, HIDDEN), dtype)
        given[:, :, :HIDDEN] = weights.reshape(1, 3, HIDDEN, HIDDEN)
        given = given.reshape(1, 3, WIDE // 32, 32, HIDDEN).transpose(0, 2, 4, 1, 3)
    ins = [sums, np.ascontiguousarray(given), state, lengths]
    outs = [(t.shape, dtype) for t in spec.outs]
    for tile in candidates(spec, target):
        assert tile.spilled == (local_mem == 64)
        _, last = run_kernel(emit(spec, tile, target), ins, outs)
        wanted = expected(sums, weights, state, lengths)
        np.testing.assert_allclose(last[0], wanted, rtol=1e-5, atol=1e-6)


def rounded(h: Array) -> Array:
    """Rows by ONNX's DynamicQuantizeLinear and back."""
    least, most = np.minimum(h.min(1), 0), np.maximum(h.max(1), 0)
    scale = np.where(most > least, (most - least) / np.float32(255), 1)[:, None]
    zero = np.rint(np.clip(-least[:, None] / scale, 0, 255))
    return (np.clip(np.rint(h / scale) + zero, 0, 255) - zero) * scale


@pytest.mark.parametrize("cls", TARGETS)
def test_states_go_through_eight_bits(cls: str) -> None:
    builder = Builder(["float32"])
    sigmoid = builder.build(Term(builder, 0).sigmoid().number)
    tanh = builder.build(Term(builder, 0).op("tanh").number)
    shapes = [(STEPS, ROWS, 1, 4, WIDE), (1, 4 * HIDDEN, HIDDEN), (1, ROWS, HIDDEN)]
    last = (1, ROWS, HIDDEN)
    spec = replace(
        gru("float32", False),
        kind="LSTM",
        functions=(sigmoid, tanh, tanh),
        has_lengths=False,
        rounds=True,
        ins=tuple(dense("float32", shape) for shape in shapes),
        outs=tuple(dense("float32", s) for s in ((STEPS, 1, ROWS, HIDDEN), last, last)),
    )
    sums, weights, start = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    h, c = start[0], np.zeros((ROWS, HIDDEN), np.float32)
    for t in range(STEPS):
        back = rounded(h) @ weights[0].T
        i, o, f, g = np.split(sums[t, :, 0, :, :HIDDEN].reshape(ROWS, -1) + back, 4, axis=1)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
    for tile in candidates(spec, TARGETS[cls]):
        outs = [(tensor.shape, "float32") for tensor in spec.outs]
        found = run_kernel(emit(spec, tile, TARGETS[cls]), [sums, weights, start], outs)
        np.testing.assert_allclose(found[1][0], h, rtol=1e-4, atol=1e-5)
