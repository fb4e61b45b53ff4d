"""The checks between passes find each kind of damage."""

from __future__ import annotations

import pytest

from clinfer.graph.ir import Value
from clinfer.passes.verify import InvalidGraph, verify
from passes.passes_helpers import model, optimised, random


@pytest.fixture
def graph():
    body = "a = MatMul(x, w) b = Transpose<perm = [1, 0]>(a) y = Softmax(b)"
    made, _ = optimised(model("float[2, 3] x => float[5, 2] y", body, {"w": random((3, 5))}))
    verify(made, canonical=True)
    return made


def _order(graph):
    graph.nodes.reverse()


def _users(graph):
    graph.inputs[0].users.clear()


def _producer(graph):
    graph.nodes[0].output.producer = graph.nodes[1]


def _two_producers(graph):
    graph.nodes[1].outputs[0] = graph.nodes[0].outputs[0]


def _unknown_output(graph):
    graph.outputs[0] = Value("lost", "float32", (5, 2))


def _fed_input(graph):
    graph.inputs[0].producer = graph.nodes[0]


def _perm(graph):
    graph.nodes[1].attrs["perm"] = [0, 0]


def _shape(graph):
    graph.nodes[0].output.shape = (2, 7)


def _form(graph):
    graph.nodes[1].op = "Flatten"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_order, "before it is computed"),
        (_users, "the users of 'x' are not the nodes that read it"),
        (_producer, "does not know its producer"),
        (_two_producers, "has two producers"),
        (_unknown_output, "output 'lost' is never computed"),
        (_fed_input, "input 'x' has a producer"),
        (_perm, "is no permutation of rank 2"),
        (_shape, "is not of the shape"),
        (_form, "Flatten is not canonical"),
    ],
)
def test_damage_is_named(graph, damage, words):
    damage(graph)
    with pytest.raises(InvalidGraph, match=words):
        verify(graph, canonical=True)
