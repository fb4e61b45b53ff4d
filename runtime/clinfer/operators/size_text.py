"""Expressions of sizes as an extension's author writes them: 'N * ceildiv(size(x), 4)'.

Names are those of dimensions and of attributes that are integers; `size(x)`, `rank(x)` and
`dim(x, axis)` ask a tensor. The operations are + - * // % and the functions of `_FUNCTIONS`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clinfer.errors import ExtensionError, listed
from clinfer_kernels import dims
from clinfer_kernels.dims import Dim

_BINARY: dict[type, Callable[[Any, Any], Dim]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: dims.floordiv,
    ast.Mod: lambda a, b: a % b,
}
_FUNCTIONS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "ceildiv": dims.ceildiv,
    "min": dims.minimum,
    "max": dims.maximum,
}
_OF_TENSORS = {"size": 1, "rank": 1, "dim": 2}
"""How many arguments they take, the first a tensor's name."""
_KNOWN = "sizes are made of names, integers, + - * // %, ceildiv, min, max, size, rank and dim"


class Known(NamedTuple):
    """What an expression may name: sizes and integers, and tensors' shapes."""

    sizes: Mapping[str, Dim]
    shapes: Mapping[str, tuple[Dim, ...]]


class SizeText:
    """One expression, checked when it is made; called, it gives the size.

    Raises `ExtensionError`, saying `where`, for what is no expression or names what is not there:
    `names` of sizes and `tensors`.
    """

    def __init__(self, text: str | int, names: frozenset[str], tensors: frozenset[str], where: str):
        self.text = str(text)
        self._where = where
        if isinstance(text, bool) or not isinstance(text, (str, int)):
            raise self._error(f"a size is an integer or a text, found {text!r}")
        try:
            self._tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error(f"{self.text!r} is no expression; {_KNOWN}") from None
        self.names: set[str] = set()
        self._check(self._tree, names, tensors)

    def __call__(self, known: Known) -> Dim:
        """The size. Raises `ExtensionError` where a division by 0 or an axis that is not there."""
        return self._value(self._tree, known)

    def _check(self, node: ast.AST, names: frozenset[str], tensors: frozenset[str]) -> None:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return
        if isinstance(node, ast.Name):
            if node.id not in names:
                raise self._error(
                    f"{self.text!r} names {node.id!r}; known are "
                    f"{listed(sorted(names)) or 'no names'}"
                )
            self.names.add(node.id)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._check(node.operand, names, tensors)
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            self._check(node.left, names, tensors)
            self._check(node.right, names, tensors)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            self._check_call(node.func.id, node.args, names, tensors)
        else:
            raise self._error(f"{self.text!r} is no size; {_KNOWN}")

    def _check_call(
        self, function: str, args: list[ast.expr], names: frozenset[str], tensors: frozenset[str]
    ) -> None:
        count = _OF_TENSORS.get(function, 2 if function in _FUNCTIONS else -1)
        if len(args) != count:
            raise self._error(f"{self.text!r}: no function '{function}' of {len(args)}; {_KNOWN}")
        if function in _OF_TENSORS:
            tensor, *args = args
            if not isinstance(tensor, ast.Name) or tensor.id not in tensors:
                raise self._error(
                    f"{self.text!r}: {function} is asked of an input, one of {listed(tensors)}"
                )
        for arg in args:
            self._check(arg, names, tensors)

    def _value(self, node: Any, known: Known) -> Dim:
        if isinstance(node, ast.Constant):
            return int(node.value)  # type: ignore[arg-type]  # checked above
        if isinstance(node, ast.Name):
            return known.sizes[node.id]
        if isinstance(node, ast.UnaryOp):
            return -1 * self._value(node.operand, known)
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, known), self._value(node.right, known)
            if right == 0 and isinstance(node.op, (ast.FloorDiv, ast.Mod)):
                raise self._error(f"{self.text!r} divides by 0")
            return _BINARY[type(node.op)](left, right)
        function, args = node.func.id, list(node.args)
        if function not in _OF_TENSORS:
            return _FUNCTIONS[function](*(self._value(arg, known) for arg in args))
        shape = known.shapes[args[0].id]
        if function == "dim":
            axis = self._value(args[1], known)
            if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
                raise self._error(f"{self.text!r}: '{args[0].id}' has no axis {axis}")
            return shape[axis]
        return len(shape) if function == "rank" else dims.product(shape)

    def _error(self, what: str) -> ExtensionError:
        return ExtensionError(f"{self._where}: {what}")
