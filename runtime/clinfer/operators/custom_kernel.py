"""Operators given as OpenCL C: the text with one kernel, its arguments and its launch.

The text is the program's own, never a model's. What a node of a model adds to it is numbers: the
values of attributes. Sizes are arguments, so that one program serves all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinfer.operators.custom import CustomOperator
from clinfer.operators.size_text import SizeText

HEADING = "// extension "
"""How the text of an extension's program begins."""

_SCALARS = {
    "int": ("int", "signed int", "signed"),
    "uint": ("uint", "unsigned int", "unsigned"),
    "long": ("long", "long int", "signed long"),
    "float": ("float",),
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_QUALIFIER = re.compile(r"\b(?:const|restrict|volatile)\b")
_STRING_KINDS = (3, 8)
_LONGEST = 2**31


class Argument(NamedTuple):
    """An argument of the kernel: `kind` 'tensor', 'local' (bytes) or a scalar's C type."""

    kind: str
    tensor: str = ""
    size: SizeText | None = None


class OpenCLOperator(CustomOperator):
    """An operator computed by a kernel in OpenCL C.

    `source` is the text, `entry` the kernel's name in it. `arguments` are in the kernel's order:
    the name of an input or output (a pointer to its elements, dense and row-major), or a pair of a
    C type (int, uint, long, float) and a size, or ('local', bytes) for a pointer to local memory.
    `global_size` lists one to three sizes, rounded up to multiples of `local_size`, so that a
    kernel must not write beyond the end. `options` go to the compiler. The text finds its
    attributes as macros, ATTR_name, and the C types of tensors' elements as name_t.

    Raises `ExtensionError` where the arguments are not those that the kernel has in the text.
    """

    def __init__(
        self,
        name: str,
        source: str,
        entry: str,
        inputs: Mapping[str, Any],
        outputs: Any,
        arguments: Sequence[Any],
        global_size: Sequence[str | int],
        local_size: Sequence[int] = (1,),
        attributes: Mapping[str, Any] | None = None,
        types: Callable[..., Any] | None = None,
        options: str = "",
    ) -> None:
        super().__init__(name, inputs, outputs, attributes, types)
        if not isinstance(source, str) or "\0" in source:
            raise self.error("source is OpenCL C in a str")
        self.source, self.entry, self.options = source, self._word(entry, "the kernel"), options
        names = [*(i.name for i in self.inputs), *(o.name for o in self.outputs)]
        if len(set(names)) != len(names):
            raise self.error("two of its tensors have one name")
        if not isinstance(arguments, (list, tuple)) or not isinstance(options, str):
            raise self.error("arguments is a list, options a str")
        self.arguments = tuple(self._argument(given, names) for given in arguments)
        written = {argument.tensor for argument in self.arguments}
        for output in self.outputs:
            if output.name not in written:
                raise self.error(f"output '{output.name}' is no argument: nothing writes it")
        self.global_size = tuple(self.size(s, "global_size") for s in self._sizes(global_size))
        self.local_size = self._local(local_size)
        self._require_parameters()

    def text(self, attrs: Mapping[str, Any], types: Mapping[str, str]) -> str:
        """The program for a node: `types` are the tensors' element types in OpenCL C, by name."""
        lines = [f"{HEADING}'{self.name}'"]
        for name, value in sorted(self.values(attrs).items()):
            if self.attributes[name].kind not in _STRING_KINDS:
                lines.append(f"#define ATTR_{name} {_literal(value, self.attributes[name].kind)}")
        lines += [f"typedef {ctype} {name}_t;" for name, ctype in types.items()]
        return "\n".join([*lines, "", self.source])

    def _content(self) -> list[Any]:
        arguments = [(a.kind, a.tensor, a.size and a.size.text) for a in self.arguments]
        shape = [size.text for size in self.global_size]
        launch = [arguments, shape, self.local_size]
        return [*super()._content(), self.source, self.entry, self.options, launch]

    def _argument(self, given: Any, names: Sequence[str]) -> Argument:
        if isinstance(given, str):
            if given not in names:
                raise self.error(
                    f"argument {given!r}: a tensor's name ({', '.join(names)}) or a pair of a C "
                    "type and a size expected"
                )
            return Argument("tensor", given)
        kinds = ("local", *_SCALARS)
        if not isinstance(given, (tuple, list)) or len(given) != 2 or given[0] not in kinds:
            raise self.error(f"argument {given!r}: a pair of {' or '.join(kinds)} and a size")
        return Argument(given[0], size=self.size(given[1], f"argument {given!r}"))

    def _sizes(self, given: Any) -> Sequence[Any]:
        if not isinstance(given, (list, tuple)) or not 1 <= len(given) <= 3:
            raise self.error(f"global_size is a list of one to three sizes, found {given!r}")
        return given

    def _local(self, given: Any) -> tuple[int, ...]:
        if (
            not isinstance(given, (list, tuple))
            or len(given) != len(self.global_size)
            or not all(type(n) is int and 1 <= n < _LONGEST for n in given)
        ):
            raise self.error(
                f"local_size is a list of {len(self.global_size)} integers from 1 on, as long as "
                f"global_size; found {given!r}"
            )
        return tuple(given)

    def _require_parameters(self) -> None:
        """The kernel's parameters in the text are the arguments: nothing else checks it."""
        code = _COMMENT.sub(" ", self.source)
        found = re.search(rf"\b(?:__)?kernel\b[^;{{}}]*?\b{self.entry}\s*\(([^)]*)\)", code)
        if found is None:
            raise self.error(
                f"the text has no kernel '{self.entry}' whose parameters are written out"
            )
        inside = found.group(1).strip()
        parameters = [] if inside in ("", "void") else [p.strip() for p in inside.split(",")]
        if len(parameters) != len(self.arguments):
            raise self.error(
                f"the kernel '{self.entry}' has {len(parameters)} parameters in the text; "
                f"{len(self.arguments)} arguments are given"
            )
        for parameter, argument in zip(parameters, self.arguments, strict=True):
            if not _takes(parameter, argument):
                what = argument.tensor or argument.kind
                raise self.error(
                    f"the kernel's parameter '{' '.join(parameter.split())}' does not take the "
                    f"argument '{what}': tensors are __global pointers, 'local' is a __local one"
                )


def _takes(parameter: str, argument: Argument) -> bool:
    words = _QUALIFIER.sub(" ", parameter)
    if argument.kind in ("tensor", "local"):
        spaces = ("global", "constant") if argument.kind == "tensor" else ("local",)
        return "*" in words and any(re.search(rf"\b(?:__)?{s}\b", words) for s in spaces)
    ctype = " ".join(words.replace("__private", " ").split()[:-1])
    return "*" not in words and ctype in _SCALARS[argument.kind]


def _literal(value: Any, kind: int) -> str:
    """A number, or several in braces, as OpenCL C writes them."""
    if kind in (6, 7):
        return "{" + ", ".join(_literal(item, kind - 5) for item in value) + "}"
    if kind == 2:
        return _integer(int(value))
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "(-INFINITY)"
    number32 = float(np.float32(value))
    return f"({number32.hex()}f)"


def _integer(number: int) -> str:
    if number == -(2**63):  # the least long has no literal of its own
        return f"({number + 1}L - 1)"
    return f"({number}L)" if abs(number) >= _LONGEST else f"({number})"
