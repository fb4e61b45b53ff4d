"""Kernel texts kept as `.cl` files beside their family, with `$name` where a structure decides."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from string import Template
from textwrap import indent

from clinfer_kernels.common import with_helpers
from clinfer_kernels.spec import Target


def fill(name: str, target: Target, **values: str | int) -> str:
    """The program of `name`.cl with its `$` names replaced and the helpers it calls in front.

    A line that is just a name goes where the value is empty.
    """
    text = _text(name)
    for key, value in values.items():
        if value == "":
            text = text.replace(f"\n${key}\n", "\n")
    return with_helpers(Template(text).substitute(values), target)


def template(name: str, **values: str | int) -> str:
    """The text of `name`.cl with its `$` names replaced, for a place in another one."""
    return Template(_text(name)).substitute(values)


def block(lines: list[str] | tuple[str, ...], depth: int) -> str:
    """Statements, one a line, indented by `depth` steps of four; no line break at the end."""
    return indent("\n".join(lines), "    " * depth)


def inside(lines: Iterable[str]) -> list[str]:
    """Statements, one step further in."""
    return [f"    {line}" for line in lines]


@lru_cache(maxsize=64)
def _text(name: str) -> str:
    """What is in `name`.cl."""
    return Path(__file__).parent.joinpath(f"{name}.cl").read_text(encoding="utf-8")
