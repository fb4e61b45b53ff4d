"""Models changed at random are read and planned, or refused by an error of ours.

`tools/fuzz.py models` does the same at length, with the runs.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import onnx
import pytest
from graph_helpers import proto

from clinfer.errors import ClinferError, InternalError
from clinfer.graph.reader import read
from clinfer.passes.pipeline import optimise
from fuzz_mutations import mutated

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    """m (float[N, 3, 8, 8] x) => (float[N, 4] y) <float[4, 3, 3, 3] w> {
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
        g = GlobalAveragePool(p) y = Flatten(g) }""",
    """m (float[N, S, 8] x, int64[2] i, float[8] b) => (float y, float t) {
        s = Softmax<axis = -1>(x) a = Add(s, b) g = Gather<axis = 1>(a, i)
        d = Shape(g) r = Reshape(g, d) q = Transpose<perm = [1, 0, 2]>(r)
        y, t = Split<axis = 0, num_outputs = 2>(q) }""",
    """m (float[2, N] x, bool c) => (float[2, N] y) {
        t = If(c) <then_branch = t () => (float[2, N] a) { a = Neg(x) },
                   else_branch = e () => (float[2, N] b) { b = Exp(x) }>
        y = Clip(t) }""",
)


@lru_cache(maxsize=1)
def seeds() -> list[onnx.ModelProto]:
    made = [proto(text, 18) for text in TEXTS]
    for tensor in made[0].graph.initializer:
        tensor.float_data[:] = [0.5] * 108
    return [*made, onnx.load(ROOT / "examples" / "digits.onnx")]


@pytest.mark.parametrize("batch", range(8))
def test_mutated_models_give_a_graph_or_an_error_of_ours(batch: int) -> None:
    for number in range(60):
        rng = random.Random(f"{batch}/{number}")
        model, changes = mutated(rng, rng.choice(seeds()), seeds())
        try:
            graph = read(model).graph()
            optimise(graph, cls=rng.choice(("cpu", "gpu")))
        except InternalError as error:
            raise AssertionError(f"case {batch}/{number}: {changes}") from error
        except ClinferError as error:
            assert 0 < len(str(error)) < 2200
