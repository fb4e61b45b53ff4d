"""The inputs and outputs of a model that no single plan has, and whether a run's sizes fit them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clinfer.lowering.binding import bind_inputs
from clinfer.lowering.plan import Constraint, Plan, PlanPort

if TYPE_CHECKING:
    from clinfer.graph.ir import Graph, Value

_SHAPES = 8


def signature_of(graph: Graph) -> Plan:
    """The ports of a graph and what must hold of their sizes: a plan without a step."""
    pairs = zip(graph.output_names, graph.outputs, strict=True)
    return Plan(
        tuple(_port(value.name, value) for value in graph.inputs),
        tuple(_port(name, value) for name, value in pairs),
        (),
        (),
        (),
        (),
        tuple(Constraint(*constraint) for constraint in graph.constraints),
        dict(graph.metadata),
    )


class Fitting:
    """Checks the sizes of runs, those of the last few without looking again."""

    def __init__(self, signature: Plan) -> None:
        self._signature = signature
        self._known: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    def require(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs' shapes. Raises `InputError` and `ShapeError` as a run on one device."""
        shapes = tuple(getattr(value, "shape", None) for value in inputs)
        if shapes not in self._known:
            bind_inputs(self._signature, shapes)
            self._known[shapes] = None
            if len(self._known) > _SHAPES:
                self._known.popitem(last=False)
        return shapes


def _port(name: str, value: Value) -> PlanPort:
    return PlanPort(name, value.dtype or "object", value.shape, -1)
