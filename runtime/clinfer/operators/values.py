"""What attributes may hold: words, numbers in a range, types."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from clinfer.dtypes import BY_ONNX

_MOST = 2**31 - 1
_SHOWN = 60  # characters of a value that a message quotes


class Expected(NamedTuple):
    """`holds` says whether a value will do, `what` would; of a list each element is asked."""

    what: str
    holds: Callable[[Any], bool]


def words(*allowed: str, any_case: bool = False) -> Expected:
    """One of these words."""
    known = frozenset(word.lower() for word in allowed) if any_case else frozenset(allowed)
    what = "one of " + ", ".join(f"'{word}'" for word in allowed if word)
    if any_case:
        return Expected(what, lambda value: str(value).lower() in known)
    return Expected(what, lambda value: value in known)


def matching(pattern: str, what: str) -> Expected:
    """Text of a certain form."""
    form = re.compile(pattern)
    return Expected(what, lambda value: form.fullmatch(value) is not None)


def at_least(least: int) -> Expected:
    """A number from `least` on that kernels can count to."""
    return Expected(f"{least} to {_MOST}", lambda value: least <= value <= _MOST)


def among(*numbers: int) -> Expected:
    """One of these numbers."""
    known = frozenset(numbers)
    return Expected(f"one of {', '.join(map(str, numbers))}", lambda value: value in known)


def _is_text(value: Any) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


TEXT = Expected("text in UTF-8", _is_text)
"""Any text: host steps alone read it."""

POSITIVE = at_least(1)
NATURAL = at_least(0)
SWITCH = among(0, 1)
DTYPE = among(*BY_ONNX)
SOME_DTYPE = among(0, *BY_ONNX)  # 0: none is given


def shortened(value: Any) -> str:
    """A value for a message, on one line and not too long."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
