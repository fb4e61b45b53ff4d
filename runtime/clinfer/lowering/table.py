"""The operator table: graph operator -> lowering rule.

A rule reads the node's inputs as views, launches kernels or makes views, and binds the outputs. It
raises `Unlowerable` where no kernel fits; the node then becomes a host step with that reason. Rules
live in `lowering/operators/`, one module per kernel family, and enter the table with `@lowers`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from clinfer.graph.ir import Node
from clinfer.lowering.context import Lowering

Rule = Callable[[Lowering, Node], None]

MODULES = (
    "views",
    "pointwise",
    "matmul",
    "attention",
    "conv",
    "reduce",
    "movement",
    "indexing",
    "recurrent",
    "boxes",
    "forests",
)

_RULES: dict[str, Rule] = {}


def lowers(*kinds: str) -> Callable[[Rule], Rule]:
    """Enters a rule for operators, named as `Node.kind` names them."""

    def enter(rule: Rule) -> Rule:
        for kind in kinds:
            assert kind not in _RULES, f"two lowerings for {kind}"
            _RULES[kind] = rule
        return rule

    return enter


def rules() -> dict[str, Rule]:
    """The whole table."""
    for name in MODULES:
        import_module(f"clinfer.lowering.operators.{name}")
    return _RULES
