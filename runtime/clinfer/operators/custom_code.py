"""What of a Python function enters a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def code_text(function: Callable[..., Any]) -> str:
    """What is known of a function's code: that of others that it calls is not."""
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    contents = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    cells = [code_text(c) if hasattr(c, "__code__") else repr(c) for c in contents]
    return repr([*_code(code), getattr(function, "__defaults__", None), cells])


def _code(code: Any) -> list[Any]:
    consts = [_code(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), consts, code.co_names]
