"""Operator sets that a model imports: their domains and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Opsets = Mapping[str, int]


def domain_of(name: str) -> str:
    """The domain with ONNX's two names for its own operators made one."""
    return "" if name == "ai.onnx" else name


def imports(opset_import: Sequence[object]) -> dict[str, int]:
    """Operator-set versions by domain."""
    return {domain_of(o.domain): o.version for o in opset_import}  # type: ignore[attr-defined]
