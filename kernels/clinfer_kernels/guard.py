"""What may enter a text: numbers, names of ours, and the words that a spec's fields list.

Whoever writes a model chooses its attributes and names; from a graph to a text leads one way, a
spec. So `check_spec` looks at every field when a spec is made: a field of text is annotated
`Literal[...]` and holds one of its words; everything else is numbers, sizes, tensors of dtypes that
kernels know, and expressions of the operations in `scalar_ops`. `check_name` and `check_text` look
at what comes out, at the two places every kernel's text passes: `common.kernel_head` and
`common.with_helpers`. Sizes, and the names of symbols in them, are arguments and enter no text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from numbers import Number
from typing import Any, Literal, get_args, get_origin, get_type_hints

from clinfer_kernels import dims
from clinfer_kernels.expr import Expr, Line
from clinfer_kernels.scalar_ops import SCALAR_OPS
from clinfer_kernels.spec import Tensor
from clinfer_kernels.types import TYPES

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_OPERATIONS = frozenset({"const", "cast", *SCALAR_OPS})
_DIRECTIVE = re.compile(r"^[ \t]*(?:#|%:)[ \t]*(\w*)", re.M)
_DIRECTIVES = frozenset({"define", "undef", "if", "ifdef", "ifndef", "else", "endif", "pragma"})
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*")


class UnsafeTextError(ValueError):
    """Something that is no number, name or word of ours was to enter a kernel's text."""


def check_spec(spec: object) -> None:
    """`UnsafeTextError` where a field of a spec holds what must not enter a text."""
    kind: Any = type(spec)
    for name, allowed in _fields(kind):
        value = getattr(spec, name)
        if allowed:
            _require(value in allowed, type(spec).__name__, name, value)
        else:
            _check_value(value, type(spec).__name__, name)


@lru_cache(maxsize=64)
def _fields(kind: Any) -> tuple[tuple[str, frozenset[str]], ...]:
    """Fields of a spec, with the words of those that are text."""
    hints = get_type_hints(kind)
    return tuple(
        (name, frozenset(get_args(hint) if get_origin(hint) is Literal else ()))
        for name, hint in hints.items()
    )


def _check_value(value: Any, kind: str, name: str) -> None:
    if value is None or isinstance(value, (int, float, dims.Expr, Number)):
        return
    if isinstance(value, Expr):
        _check_expr(value, kind, name)
    elif isinstance(value, Tensor):
        _check_dtype(value.dtype, kind, name)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _check_value(item, kind, name)
    else:
        _require(False, kind, name, value)


def _check_expr(expr: Expr, kind: str, name: str) -> None:
    for dtype in expr.inputs:
        _check_dtype(dtype, kind, name)
    for line in expr.lines:
        _check_line(line, kind, name)


def _check_line(line: Line, kind: str, name: str) -> None:
    _require(line.op in _OPERATIONS, kind, name, line.op)
    _check_dtype(line.dtype, kind, name)
    for item in line.attrs:
        _require(isinstance(item, (int, float, Number)), kind, name, item)


def _check_dtype(dtype: str, kind: str, name: str) -> None:
    _require(dtype in TYPES, kind, name, dtype)


def _require(holds: bool, kind: str, name: str, value: Any) -> None:
    if not holds:
        raise UnsafeTextError(f"{kind}: '{name}' cannot be {ascii(value)[:60]}")


def check_name(name: str) -> str:
    """`name`, where a function of OpenCL C can have it."""
    if not _NAME.fullmatch(name):
        raise UnsafeTextError(f"{ascii(name)[:60]} is no name of a kernel")
    return name


def check_text(text: str) -> str:
    """`text`, where it is plain ASCII and includes no file."""
    if not _PLAIN.fullmatch(text):
        raise UnsafeTextError("a kernel's text has characters that are not plain ASCII")
    for directive in _DIRECTIVE.findall(text):
        if directive not in _DIRECTIVES:
            raise UnsafeTextError(f"a kernel's text has the directive '#{directive}'")
    return text
