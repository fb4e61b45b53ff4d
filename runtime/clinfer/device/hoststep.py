"""Host steps: operators without a kernel, run by the reference implementation between launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinfer.errors import ShapeError
from clinfer.lowering.binding import Sizes, symbol_name
from clinfer.lowering.plan import HostStep, Plan
from clinfer_kernels.spec import Tensor


class HostRunner:
    """Keeps one evaluator per host step of a plan; loads the implementation when first needed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._operators: dict[int, Any] = {}

    def run(self, step: HostStep, inputs: Sequence[Any]) -> list[Any]:
        """The step's results for its inputs (arrays, or host objects)."""
        operator = self._operators.get(id(step))
        if operator is None:
            from clinfer.graph.reference import HostOp

            operator = HostOp.from_json(step.op)
            self._operators[id(step)] = operator
        results: list[Any] = operator.run(inputs)
        return results


def binds(step: HostStep, tensor: Tensor, shape: Sequence[int], sizes: Sizes) -> None:
    """Binds the symbols that a host step's result gives; checks the sizes that are known.

    Raises `ShapeError` naming the step where the result has another shape than was inferred.
    """
    if len(shape) != len(tensor.shape):
        raise ShapeError(
            f"{step.label} gave a result of rank {len(shape)}, not {len(tensor.shape)} as inferred"
        )
    for dim, found in zip(tensor.shape, shape, strict=True):
        name = symbol_name(dim)
        if name is not None and name not in sizes.values:
            sizes.bind(name, found)
        elif sizes(dim) != found:
            raise ShapeError(
                f"{step.label} gave a result of shape {list(shape)}; "
                f"{[str(d) for d in tensor.shape]} was inferred, where {dim} is {sizes(dim)}"
            )
