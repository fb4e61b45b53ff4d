"""The driver: what rules see, what their answers do, and that it ends."""

from __future__ import annotations

import numpy as np
import pytest

from clinfer.errors import ClinferError
from clinfer.graph.ir import Graph, Node, Value
from clinfer.passes.rewrite import Log, Outcome, Refusal, Rewriter, Rule, run_rules
from clinfer.passes.verify import verify


def _chain(*ops: str) -> Graph:
    x = Value("x", "float32", (2, 3))
    graph = Graph(inputs=[x])
    for op in ops:
        x = graph.node(op, [x], like=x).output
    graph.outputs = [x]
    graph.output_names = ["y"]
    return graph


def _pair(rw: Rewriter, node: Node) -> Outcome:
    inner = node.required(0).producer
    return inner.required(0) if inner is not None and inner.kind == "Neg" else None


PAIR = Rule("double-negation", ("Neg",), _pair)


def test_a_rule_fires_until_it_no_longer_applies():
    graph, log = _chain("Neg", "Neg", "Neg", "Neg", "Exp"), Log()
    assert run_rules(graph, [PAIR], log, "test") == 2
    assert [n.kind for n in graph.nodes] == ["Exp"]
    assert log.fired["test", "double-negation"] == 2
    verify(graph)


def test_new_nodes_land_before_the_root_and_unused_ones_go():
    def split(rw: Rewriter, node: Node) -> Outcome:
        x = node.required(0)
        rw.emit("Abs", [x], x.dtype, x.shape)
        half = rw.emit("Relu", [x], x.dtype, x.shape)
        return rw.emit("Neg", [half], x.dtype, x.shape)

    graph = _chain("Exp", "Sin")
    run_rules(graph, [Rule("split", ("Exp",), split)], Log(), "test")
    assert [n.kind for n in graph.nodes] == ["Relu", "Neg", "Sin"]
    verify(graph)


def test_a_refusal_is_kept_once_a_node_and_leaves_nothing_behind():
    def refuse(rw: Rewriter, node: Node) -> Outcome:
        x = node.required(0)
        rw.emit("Abs", [x], x.dtype, x.shape)
        return Refusal("the moon is full")

    graph, log = _chain("Exp", "Exp"), Log()
    for _ in range(2):
        run_rules(graph, [Rule("moon", ("Exp",), refuse)], log, "test")
    (key,) = log.refused
    assert key == ("test", "moon", "the moon is full")
    assert len(log.refused[key]) == 2
    assert "and 1 more: the moon is full" in log.lines()[0]
    assert [n.kind for n in graph.nodes] == ["Exp", "Exp"]
    verify(graph)


def test_rules_that_never_end_are_named():
    def again(rw: Rewriter, node: Node) -> Outcome:
        x = node.required(0)
        return rw.emit("Exp", [x], x.dtype, x.shape)

    with pytest.raises(ClinferError, match="'circle' still fires at Exp"):
        run_rules(_chain("Exp"), [Rule("circle", ("Exp",), again)], Log(), "test")


def test_typed_rules_do_not_see_what_kernels_cannot_compute():
    def drop(rw: Rewriter, node: Node) -> Outcome:
        return node.required(0)

    graph = _chain("Neg")
    graph.inputs[0].dtype = "string"
    assert run_rules(graph, [Rule("drop", ("Neg",), drop)], Log(), "test") == 0
    assert run_rules(graph, [Rule("drop", ("Neg",), drop, typed=False)], Log(), "test") == 1


def test_transposing_and_reshaping_nothing_makes_no_node():
    rw = Rewriter(_chain("Exp"))
    x = rw.graph.inputs[0]
    assert rw.transpose(x, [0, 1]) is x
    assert rw.reshape(x, (2, 3)) is x
    constant = rw.constant(np.arange(6).reshape(2, 3))
    assert rw.transpose(constant, [1, 0]).const is not None
    assert rw.reshape(constant, (3, 2)).const is not None
    assert not rw.made
