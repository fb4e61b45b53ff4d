"""Host steps: operators without a kernel, run by the reference implementation between launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.dtypes import to_numpy
from clinfer.errors import ShapeError
from clinfer.lowering.binding import Sizes, symbol_name
from clinfer.lowering.plan import HostStep, HostValue, Plan
from clinfer_kernels.dims import Dim

if TYPE_CHECKING:
    from clinfer.graph.custom_step import FunctionOp


class _Called(NamedTuple):
    """A step that calls a Python function of the program's."""

    op: FunctionOp
    function: Callable[..., Any]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        return self.op.run(self.function, inputs)


class HostRunner:
    """Keeps one evaluator per host step of a plan; loads the implementation when first needed."""

    def __init__(
        self, plan: Plan, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        """`functions` are those of extensions, by kind. Raises `ExtensionError` without one."""
        self._plan = plan
        self._operators: dict[int, Any] = {}
        for step in plan.host_steps:
            if "extension" in step.op:
                from clinfer.graph.custom_step import FunctionOp, required

                function = required(step.op, functions or {})
                self._operators[id(step)] = _Called(FunctionOp.from_json(step.op), function)

        self.calls_functions = bool(self._operators)

    def run(self, step: HostStep, inputs: Sequence[Any]) -> list[Any]:
        """The step's results for its inputs (arrays, or host objects)."""
        operator = self._operators.get(id(step))
        if operator is None:
            from clinfer.graph.reference import HostOp

            operator = HostOp.from_json(step.op)
            self._operators[id(step)] = operator
        results: list[Any] = operator.run(inputs)
        return results


def empty_results(step: HostStep, sizes: Sizes) -> list[Any] | None:
    """The results of a step that has nothing to compute: each is known to have no element.

    None where there is something to compute. That the inputs fit is what the plan's constraints
    say; no implementation has to be right for operands without elements.
    """
    results: list[Any] = []
    for value in step.outputs:
        shape = None if value is None else _empty(value, sizes)
        if shape is not None and value is not None and value.tensor is not None:
            results.append(np.empty(shape, to_numpy(value.tensor.dtype)))
        elif value is not None:
            return None
        else:
            results.append(None)
    return results if any(result is not None for result in results) else None


def _empty(value: HostValue, sizes: Sizes) -> tuple[int, ...] | None:
    """The shape of a tensor that is known to have no element."""
    if value.tensor is None:
        return None
    try:
        shape = tuple(sizes(d) for d in value.tensor.shape)
    except KeyError:  # a size that the step gives
        return None
    return shape if min(shape, default=1) == 0 else None


def binds(step: HostStep, inferred: Sequence[Dim], shape: Sequence[int], sizes: Sizes) -> None:
    """Binds the symbols that the shape of a host step's result gives; checks the known sizes.

    Raises `ShapeError` naming the step where the result has another shape than was inferred.
    """
    if len(shape) != len(inferred):
        raise ShapeError(
            f"{step.label} gave a result of rank {len(shape)}, not {len(inferred)} as inferred; "
            "where the model declares types of values (value_info), take them out"
        )
    for dim, found in zip(inferred, shape, strict=True):
        name = symbol_name(dim)
        if name is not None and name not in sizes.values:
            sizes.bind(name, found)
        elif sizes(dim) != found:
            raise ShapeError(
                f"{step.label} gave a result of shape {list(shape)}; "
                f"{[str(d) for d in inferred]} was inferred, where {dim} is {sizes(dim)}"
            )
