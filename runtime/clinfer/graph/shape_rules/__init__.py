"""Shape rules by operator; each module offers `RULES`, a table from `Node.kind` to a rule."""

from __future__ import annotations

from functools import lru_cache

from clinfer.graph.shape_call import Rule


@lru_cache(maxsize=1)
def rules() -> dict[str, Rule]:
    """Every rule; an operator has exactly one."""
    from clinfer.graph.shape_rules import (
        clinfer_ops,
        contract,
        control,
        elementwise,
        indexing,
        ml,
        objects,
        pooling,
        quantize,
        recurrent,
        reduce,
        signal,
        sizes,
        views,
    )

    table: dict[str, Rule] = {}
    for module in (
        clinfer_ops,
        contract,
        control,
        elementwise,
        indexing,
        ml,
        objects,
        pooling,
        quantize,
        recurrent,
        reduce,
        signal,
        sizes,
        views,
    ):
        doubled = table.keys() & module.RULES.keys()
        assert not doubled, f"two shape rules for {sorted(doubled)}"
        table.update(module.RULES)
    return table
