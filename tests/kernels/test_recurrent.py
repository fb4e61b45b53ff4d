"""The recurrent family's ways to hold weights and states, against NumPy."""

from __future__ import annotations

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
