"""Host steps that call a Python function of an extension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer.dtypes import BY_NAME, to_numpy
from clinfer.errors import ExtensionError
from clinfer.graph.ir import Node
from clinfer.graph.reference import attributes_from_json, attributes_to_json, described
from clinfer.operators.custom import CustomOperator

Json = Any
MARK = "extension"
"""The key of a step's plain data that names the operator, 'domain::Operator'."""


class FunctionOp(NamedTuple):
    """One call: the operator's name and kind, the inputs' names, attributes, the results' types."""

    label: str
    name: str
    kind: str
    inputs: tuple[str, ...]
    dtypes: tuple[str | None, ...]
    attrs: Json

    @classmethod
    def from_node(cls, node: Node, operator: CustomOperator) -> FunctionOp:
        """The step that runs a graph's node."""
        return cls(
            node.describe(),
            operator.name,
            node.kind,
            tuple(i.name for i in operator.inputs),
            tuple(None if v is None else v.dtype for v in node.outputs),
            attributes_to_json(operator.values(node.attrs)),
        )

    def to_json(self) -> Json:
        """Plain data; `from_json` reads it back."""
        fields = [self.label, self.kind, list(self.inputs), list(self.dtypes), self.attrs]
        return {MARK: self.name, "fields": fields}

    @classmethod
    def from_json(cls, value: Json) -> FunctionOp:
        """The step that `to_json` described."""
        label, kind, inputs, dtypes, attrs = value["fields"]
        return cls(
            str(label),
            str(value[MARK]),
            str(kind),
            tuple(map(str, inputs)),
            tuple(None if d is None else str(d) for d in dtypes),
            attrs,
        )

    def run(self, function: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
        """The results. Raises `ExtensionError` naming the node where the function fails."""
        try:
            answer = function(*inputs, **attributes_from_json(self.attrs))
        except Exception as error:
            raise ExtensionError(
                f"{self._where(inputs)}: it has raised {type(error).__name__}: {error}"
            ) from error
        results = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        if len(results) != len(self.dtypes):
            raise ExtensionError(
                f"{self._where(inputs)}: it has returned {len(results)} results, the node has "
                f"{len(self.dtypes)}"
            )
        return [self._typed(r, number, inputs) for number, r in enumerate(results)]

    def _typed(self, result: Any, number: int, inputs: Sequence[Any]) -> Any:
        """The result with the declared element type, where no number changes by more than that."""
        dtype = self.dtypes[number]
        if dtype is None or dtype not in BY_NAME:
            return result
        wanted = to_numpy(dtype)
        try:
            found = np.asarray(result)
            if dtype == "string":
                return found.astype(object)
            if found.dtype == wanted or np.can_cast(found.dtype, wanted, "same_kind"):
                return found.astype(wanted, copy=False)
        except (TypeError, ValueError):
            pass
        raise ExtensionError(
            f"{self._where(inputs)}: result {number} is declared as {dtype}, found "
            f"{getattr(result, 'dtype', type(result).__name__)}"
        )

    def _where(self, inputs: Sequence[Any]) -> str:
        return f"{self.label}, the function of {self.name} with {described(self.inputs, inputs)}"


def required(
    op: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """The function that a step calls. Raises `ExtensionError` naming one that is not there."""
    step = FunctionOp.from_json(op)
    if step.kind not in functions:
        raise ExtensionError(
            f"{step.label} is run by a Python function of the operator {step.name}, which is not "
            "there: give it to this Core with add_extension first"
        )
    return functions[step.kind]
