"""Operators as records: what ONNX's schema does not say of one, in one place.

How many inputs an operator has, their types and its attributes' types and defaults, are in onnx's
own schema (`graph.schemas`). A record adds what an attribute may hold and what must hold between
operands. A module here has the records of a family of operators and offers `OPERATORS`;
`tests/operators` makes sure that none is forgotten. Nothing here imports another room: relations
are functions of a `graph.shape_call.Call`, which they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.errors import ModelError
from clinfer.operators.values import Expected, shortened

if TYPE_CHECKING:
    from clinfer.graph.shape_call import Call

Relation = Callable[["Call"], None]

MODULES = (
    "elementwise",
    "movement",
    "indexing",
    "products",
    "windows",
    "rows",
    "quantise",
    "recurrent",
    "host",
    "learned",
    "experimental",
    "contrib",
)


class Operator(NamedTuple):
    """What is true of one operator in every set of ONNX that has it; `kind` as `Node.kind`.

    `values`: what attributes may hold, of every attribute that is text and of others where not
    every number will do. `relations` see a node in its newest form (`graph.upgrade`); each raises
    `ShapeError` or states a constraint of the plan, checked when sizes are bound. An operand whose
    rank is not known is not looked at. `least`: the least size of the result's spatial axes.
    """

    kind: str
    values: Mapping[str, Expected] = {}
    relations: tuple[Relation, ...] = ()
    least: int = 0

    def check_attributes(self, attrs: Mapping[str, Any], where: str) -> None:
        """`ModelError` naming the first attribute that holds what it must not."""
        for name, expected in self.values.items():
            if name not in attrs:
                continue
            value = attrs[name]
            items = value if isinstance(value, list) else (value,)
            for item in items:
                if not expected.holds(item):
                    raise ModelError(
                        f"{where}: attribute '{name}': expected {expected.what}, found "
                        f"{shortened(item)}"
                    )


def plain(kinds: str) -> tuple[Operator, ...]:
    """Records of operators that have nothing to relate: any operands that broadcast will do."""
    return tuple(Operator(kind) for kind in kinds.split())


@lru_cache(maxsize=1)
def table() -> dict[str, Operator]:
    """Every record, by kind."""
    found: dict[str, Operator] = {}
    for name in MODULES:
        operators: tuple[Operator, ...] = import_module(f"clinfer.operators.{name}").OPERATORS
        for operator in operators:
            assert operator.kind not in found, f"two records of {operator.kind}"
            found[operator.kind] = operator
    return found
