"""What a Core knows beyond ONNX: operators, and functions that are written out as their bodies."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from clinfer.errors import ExtensionError
from clinfer.operators.custom import CustomOperator
from clinfer.operators.custom_function import PythonOperator
from clinfer.sha256 import sha256


class OnnxFunction:
    """An operator that is a function of other operators: calls are written out as its body.

    `function` is an `onnx.FunctionProto`, or what has a `to_function_proto` (onnxscript's
    functions). Raises `ExtensionError` for anything else.
    """

    def __init__(self, function: Any) -> None:
        proto = function.to_function_proto() if hasattr(function, "to_function_proto") else function
        if not hasattr(proto, "SerializeToString") or not hasattr(proto, "opset_import"):
            raise ExtensionError(
                "an onnx.FunctionProto, or a function of onnxscript, expected; found "
                f"{type(function).__name__}"
            )
        if not proto.domain or not proto.name or not proto.node:
            raise ExtensionError(
                f"function '{proto.domain}::{proto.name}': a domain, a name and nodes expected"
            )
        self.name = f"{proto.domain}::{proto.name}"
        self.kind = f"{proto.domain}.{proto.name}"
        self.encoded: bytes = proto.SerializeToString(deterministic=True)

    @property
    def digest(self) -> str:
        """SHA-256 over the function, in hex."""
        return sha256(self.encoded).hexdigest()


class Extensions:
    """What has been added to a Core, by kind; never changed: who has it keeps what it was."""

    def __init__(self, added: Mapping[str, CustomOperator | OnnxFunction] | None = None) -> None:
        self._added = dict(added or {})

    def with_(self, extension: Any) -> Extensions:
        """These and one more, or several in a list; of two with one name the later one counts.

        Raises `ExtensionError` for what is none, and for an operator that clinfer has.
        """
        added = dict(self._added)
        for item in extension if isinstance(extension, (list, tuple)) else (extension,):
            made = _extension(item)
            added[made.kind] = made
        return Extensions(added)

    def __bool__(self) -> bool:
        return bool(self._added)

    @cached_property
    def operators(self) -> dict[str, CustomOperator]:
        """The operators, by kind."""
        return {k: e for k, e in self._added.items() if isinstance(e, CustomOperator)}

    @cached_property
    def functions(self) -> list[bytes]:
        """The functions of ONNX, encoded."""
        return [e.encoded for e in self._added.values() if isinstance(e, OnnxFunction)]

    @property
    def python(self) -> dict[str, Callable[..., Any]]:
        """The functions of Python that host steps call, by kind."""
        found = self.operators.items()
        return {k: e.function for k, e in found if isinstance(e, PythonOperator)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of them, in hex; '' for none: part of a compiled model's key."""
        if not self._added:
            return ""
        lines = sorted(f"{kind} {e.digest}\n" for kind, e in self._added.items())
        return sha256("".join([_code_digest(), *lines]).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extensions) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """SHA-256 over the code here that makes texts and types of a declaration."""
    files = sorted(Path(__file__).parent.glob("custom*.py"))
    files += [Path(__file__), Path(__file__).with_name("size_text.py")]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _extension(item: Any) -> CustomOperator | OnnxFunction:
    from clinfer.operators import table

    if isinstance(item, (str, os.PathLike)):
        raise ExtensionError(
            f"'{item}': libraries of OpenVINO's extensions are for OpenVINO's devices; give an "
            "extension of clinfer.extension, in Python"
        )
    made = item if isinstance(item, (CustomOperator, OnnxFunction)) else OnnxFunction(item)
    plain = made.kind.removeprefix("ai.onnx.")
    if made.kind in table() or plain in table() or made.kind.startswith("clinfer."):
        raise ExtensionError(
            f"'{made.name}' is an operator that clinfer has; give yours a domain of its own"
        )
    return made
