"""Recurrent layers: D directions of H units over T steps of a batch of N."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator
from clinfer.operators.relations import Size, dim, rank, shaped, times
from clinfer.operators.values import POSITIVE, SWITCH, Expected, words

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call
    from clinfer.operators import Relation

LAYERS: dict[str, Expected] = {
    "direction": words("forward", "reverse", "bidirectional"),
    "activations": words(
        "Affine",
        "Elu",
        "HardSigmoid",
        "LeakyRelu",
        "Relu",
        "ScaledTanh",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
        "ThresholdedRelu",
        any_case=True,
    ),
    "hidden_size": POSITIVE,
    "layout": SWITCH,
    "input_forget": SWITCH,
    "linear_before_reset": SWITCH,
}
_UNITS = dim(2, 2)
_DIRECTIONS = Size("the directions", lambda call: _directions(call))


def _directions(call: Call) -> int:
    return 2 if call.attr("direction", "forward") == "bidirectional" else 1


_BATCH = Size("the batch", lambda call: call.shape(0)[0 if call.attr("layout", 0) else 1])


def _activations(each: int) -> Relation:
    """So many functions for each direction."""

    def check(call: Call) -> None:
        given, wanted = call.attr("activations"), each * _directions(call)
        if given is not None and len(given) != wanted:
            raise call.error(f"{wanted} activations expected, found {len(given)}")

    return check


def _state(index: int) -> Relation:
    """[D, N, H], and [N, D, H] where the batch comes first."""

    def check(call: Call) -> None:
        if call.has(index):
            outer = (_DIRECTIONS, _BATCH)
            outer = outer[::-1] if call.attr("layout", 0) else outer
            shaped(index, *outer, _UNITS)(call)

    return check


def _units(call: Call) -> None:
    stated = call.attr("hidden_size")
    if stated is not None:
        call.equal(call.shape(2)[2], int(stated), "the units of R and 'hidden_size'")


def _layer(kind: str, gates: int, functions: int, *more: Relation) -> Operator:
    gated = times(_UNITS, gates)
    return Operator(
        kind,
        LAYERS,
        (
            rank(0, 3),
            shaped(2, _DIRECTIONS, gated, None),
            _units,
            shaped(1, _DIRECTIONS, gated, dim(0, 2)),
            shaped(3, _DIRECTIONS, times(_UNITS, 2 * gates)),
            shaped(4, _BATCH),
            _state(5),
            _activations(functions),
            *more,
        ),
    )


OPERATORS = (
    _layer("LSTM", 4, 3, _state(6), shaped(7, _DIRECTIONS, times(_UNITS, 3))),
    _layer("GRU", 3, 2),
    _layer("RNN", 1, 1),
)
