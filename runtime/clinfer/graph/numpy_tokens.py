"""Tokens of text in NumPy: `clinfer.Tokenize`, what Tokenizer of com.microsoft becomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinfer.errors import InputError, ModelError

Attrs = Mapping[str, Any]
_Cut = Callable[[str], Sequence[str]]

_START, _END = "\x02", "\x03"
# Where Python's expressions and RE2's, which takes the longest match, may find other tokens.
_FOREIGN = re.compile(r"\||\[\[?:|[*+?}]\?|[$^]|\\[pPCQEzZAG]|\(\?")


def expression(text: str) -> re.Pattern[str]:
    """An expression that means the same to Python and to RE2. `ModelError` where it may not."""
    foreign = _FOREIGN.search(text)
    if foreign is not None:
        raise ModelError(
            f"the regular expression {text!r}: {foreign.group()!r} is not supported; classes, "
            "escapes, groups and greedy repetitions expected"
        )
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ModelError(f"the regular expression {text!r}: {error}") from error


def tokenize(attrs: Attrs, inputs: Sequence[Any]) -> list[Any]:
    """The tokens of each string, [C] or [N, C] -> [C, D] or [N, C, D], D the most of any string.

    `tokenexp` matches tokens, `separators` what lies between; '.' and '' make tokens of characters.
    Tokens of fewer than `mincharnum` characters are dropped, shorter rows end in `pad_value`.
    """
    (x,) = inputs
    if x.ndim not in (1, 2):
        raise InputError(f"strings of 1 or 2 dimensions expected, found {list(x.shape)}")
    cut, least = cutter(attrs), int(attrs.get("mincharnum", 1))
    rows = [[t for t in cut(str(text)) if len(t) >= least] for text in x.ravel().tolist()]
    longest = max(map(len, rows), default=0)
    if longest and attrs.get("mark"):
        rows = [[_START, *row, _END] for row in rows]
        longest += 2
    result = np.full((len(rows), longest), attrs.get("pad_value", ""), object)
    for line, row in zip(result, rows, strict=True):
        line[: len(row)] = row
    return [result.reshape(*x.shape, longest)]


def cutter(attrs: Attrs) -> _Cut:
    """What cuts a string into tokens. `ModelError` where the attributes do not say how."""
    token, separators = attrs.get("tokenexp", ""), list(attrs.get("separators", []))
    if bool(token) == bool(separators):
        raise ModelError(
            f"one of 'tokenexp' and 'separators' expected, found {token!r} and {separators!r}"
        )
    if token == "." or separators == [""]:
        return list
    if token:
        pattern = expression(token)
        return lambda text: [match.group() for match in pattern.finditer(text)]
    patterns = [expression(text) for text in separators]
    if any(pattern.match("") for pattern in patterns):
        raise ModelError(f"'separators' that match no empty text expected, found {separators}")
    return lambda text: _between(text, patterns)


def _between(text: str, patterns: Sequence[re.Pattern[str]]) -> list[str]:
    """The text cut at one separator after another."""
    parts = [text]
    for pattern in patterns:
        cut: list[str] = []
        for part in parts:
            ends = [(match.start(), match.end()) for match in pattern.finditer(part)]
            starts = [0, *(end for _, end in ends)]
            stops = [*(start for start, _ in ends), len(part)]
            cut += [part[a:b] for a, b in zip(starts, stops, strict=True) if a < b]
        parts = cut
    return parts
