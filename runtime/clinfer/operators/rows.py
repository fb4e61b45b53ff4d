"""Operators along axes: reductions, softmax, normalisations, losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clinfer.operators import Operator
from clinfer.operators.relations import (
    Size,
    attribute,
    axes,
    axis,
    dim,
    multiple,
    rank,
    same,
    shaped,
    spread,
)
from clinfer.operators.values import POSITIVE, SOME_DTYPE, among, words

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

_CHANNELS = Size("the channels", lambda c: c.shape(0)[1] if c.rank(0) > 1 else 1)
_REDUCTIONS = "Sum Mean Max Min Prod SumSquare L1 L2 LogSum LogSumExp"
_LOSS = {"reduction": words("none", "sum", "mean")}
_STATISTICS = {"stash_type": SOME_DTYPE}


def _target(call: Call) -> None:
    """A class for each place: the scores' shape without the classes' axis."""
    shape = call.shape(0)
    same(call, 1, (shape[0], *shape[2:]), "the scores without their classes")


_SCALED = (spread(1, lambda c: c.shape(0), "input 0"), spread(2, lambda c: c.shape(0), "input 0"))

OPERATORS = (
    # Axes named twice are reduced once, as ONNX Runtime has it.
    *(
        Operator(f"Reduce{name}", relations=(rank(1, 1), axes(index=1, once=False)))
        for name in _REDUCTIONS.split()
    ),
    Operator("Softmax", relations=(axis(),)),
    Operator("LogSoftmax", relations=(axis(),)),
    Operator("LpNormalization", {"p": among(1, 2)}, (axis(),)),
    Operator("MeanVarianceNormalization", {}, (axes(once=False),)),
    Operator("LRN", {"size": POSITIVE}, (rank(0, least=3),)),
    Operator(
        "BatchNormalization",
        {"spatial": among(0, 1)},
        (rank(0, least=1), *(shaped(index, _CHANNELS) for index in (1, 2, 3, 4))),
    ),
    Operator(
        "InstanceNormalization",
        {},
        (rank(0, least=3), shaped(1, dim(0, 1)), shaped(2, dim(0, 1))),
    ),
    Operator(
        "GroupNormalization",
        {"num_groups": POSITIVE, **_STATISTICS},
        (
            rank(0, least=2),
            multiple(dim(0, 1), attribute("num_groups", 1)),
            shaped(1, dim(0, 1)),
            shaped(2, dim(0, 1)),
        ),
    ),
    Operator("LayerNormalization", _STATISTICS, (axis(), *_SCALED)),
    Operator("RMSNormalization", _STATISTICS, (axis(), _SCALED[0])),
    Operator("NegativeLogLikelihoodLoss", _LOSS, (rank(0, least=2), _target, shaped(2, dim(0, 1)))),
    Operator("SoftmaxCrossEntropyLoss", _LOSS, (rank(0, least=2), _target, shaped(2, dim(0, 1)))),
)
