"""Constants are computed when the model is compiled."""

from __future__ import annotations

import warnings

import numpy as np
from graph_helpers import model, run

from clinfer.passes.dead import detach_known
from clinfer.passes.fold import LARGE, SMALL, fold


def folded(text: str, opset: int = 17) -> tuple[int, list[str]]:
    graph = model(text, opset).graph()
    count = fold(graph)
    detach_known(graph)
    return count, [node.op for node in graph.nodes]


def test_constants_meet_constants() -> None:
    count, left = folded("""m (float[3] x) => (float[3] y) <float[3] a = {1, 2, 3}> {
        b = Mul(a, a) c = Softmax(b) y = Add(x, c) }""")
    assert (count, left) == (2, ["Add"])


def test_shapes_follow_from_folded_constants() -> None:
    """The reference computes what `symbolic` does not follow; the shape is known after it."""
    graph = model("""m (float[N, 12] x) => (float[N, A, B] y) <float[1] f = {9.0}> {
        r = Sqrt(f) i = Cast<to = 7>(r) rest = Constant<value_ints = [-1]>()
        four = Constant<value_ints = [4]>() three = Identity(i)
        s = Concat<axis = 0>(rest, four, three)
        y = Reshape(x, s) }""").graph()
    fold(graph)
    assert str(graph.outputs[0].shape) == "(N, 4, 3)"


def test_infinite_constants_are_made_silently() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        folded("""m (float[4] x) => (float[4] y) <int64[1] n = {4}> {
            a = ConstantOfShape(n) b = Log(a) y = Add(x, b) }""")
    assert told == []


def test_large_expansions_stay() -> None:
    text = (
        "m (float[1] x) => (float[M] y) {{ s = Constant<value_ints = [{n}]>() "
        "z = ConstantOfShape(s) y = Add(x, z) }}"
    )
    assert folded(text.format(n=SMALL))[1] == ["Add"]
    assert folded(text.format(n=SMALL + 1))[1] == ["ConstantOfShape", "Add"]


def test_tables_that_a_run_would_compute_are_kept_up_to_a_size() -> None:
    """A relative position table: differences of all pairs, read from a smaller table."""
    text = """m (float[1] x) => (float[A, B] y) <float[3] t = {{1, 2, 3}}> {{
        n = Constant<value_ints = [{n}, 1]>() m = Constant<value_ints = [1, {n}]>()
        a = ConstantOfShape(n) b = ConstantOfShape(m) d = Sub(a, b)
        i = Cast<to = 7>(d) z = Gather(t, i) y = Add(x, z) }}"""
    assert folded(text.format(n=300))[1] == ["Add"]
    large = folded(text.format(n=LARGE // 256))[1]
    assert large == ["Sub", "Cast", "Gather", "Add"]


def test_large_masks_stay() -> None:
    """Whether a position sees another one is found from positions, not from a table."""
    text = """m (float[1] x) => (float[A, B] y) {
        n = Constant<value_ints = [300, 1]>() m = Constant<value_ints = [1, 300]>()
        a = ConstantOfShape(n) b = ConstantOfShape(m) z = Less(a, b) y = Where(z, x, x) }"""
    assert folded(text)[1] == ["Less", "Where"]


def test_scattered_constants() -> None:
    text = """m (float[4] x) => (float[4] y) <float[4] d = {0, 1, 2, 3}> {
        i = Constant<value = int64[2, 1] {-1, 1}>() u = Constant<value_floats = [5.0, 6.0]>()
        z = ScatterND%s(d, i, u) y = Add(x, z) }"""
    for reduction, expected in (("", [0, 6, 2, 5]), ('<reduction = "add">', [0, 7, 2, 8])):
        graph = model(text % reduction).graph()
        fold(graph)
        (table,) = [v.const for v in graph.values() if v.name == "z"]
        assert table is not None and table.tolist() == expected


def test_random_numbers_are_not_folded() -> None:
    assert folded(
        "m (float[2] x) => (float[2] y) {r = RandomNormal<shape = [2]>() y = Add(x, r) }"
    )[1] == ["RandomNormal", "Add"]


def test_a_branch_with_a_constant_condition_takes_its_place() -> None:
    text = """m (float[N] x) => (float[N] y) {
        c = Constant<value = bool {%d}>()
        a = Abs(x)
        z = If(c) <then_branch = t () => (float[N] p) { p = Neg(a) },
                   else_branch = e () => (float[N] q) {
                       h = Constant<value = float {2.0}>() q = Mul(a, h)
                   }>
        y = Identity(z)
    }"""
    for condition, expected in ((1, [-1, -2]), (0, [2, 4])):
        graph = model(text % condition).graph()
        fold(graph)
        assert "If" not in {n.op for n in graph.nodes}
        assert run(graph, [np.float32([1, -2])])[0].tolist() == expected


def test_branches_on_ranks_are_decided() -> None:
    """torch writes squeeze as a branch on a size."""
    graph = model("""m (float[N, 1] x) => (float[N] y) {
        s = Shape(x) one = Constant<value_int = 1>() at = Constant<value_ints = [1]>()
        d = Gather(s, one) c = Equal(d, one)
        y = If(c) <then_branch = t () => (float[N] p) { p = Squeeze(x, at) },
                   else_branch = e () => (float[N, 1] q) { q = Identity(x) }>
    }""").graph()
    fold(graph)
    assert str(graph.outputs[0].shape) == "(N,)"
