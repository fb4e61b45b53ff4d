"""RegexFullMatch: patterns in RE2's syntax, written as Python's.

https://github.com/google/re2/wiki/Syntax. Both decide alike whether a pattern matches a whole text;
what differs is the syntax, and that RE2's \\d, \\s, \\w and \\b know ASCII alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from clinfer.errors import ModelError

Ranges = Sequence[tuple[int, int]]


def full_match(attrs: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Whether each whole text matches `pattern`, of the input's shape."""
    (x,) = inputs
    matches = _compiled(str(attrs["pattern"])).fullmatch
    found = [matches(str(text)) is not None for text in x.ravel().tolist()]
    return [np.array(found, bool).reshape(x.shape)]


@lru_cache(64)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(python_pattern(pattern))
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise ModelError(
            f"attribute 'pattern': an expression in RE2's syntax expected, without classes of "
            f"Unicode's properties, found {pattern!r}: {error}"
        ) from None


def python_pattern(pattern: str) -> str:
    """The pattern as Python's `re` takes it.

    Raises `re.error` or ValueError for what RE2 does not have, or has and this does not know.
    """
    return _Translation(pattern).run()


def _ranges(text: str) -> Ranges:
    """Of pairs of characters: 'azAZ' is [a-zA-Z]."""
    return [(ord(a), ord(b)) for a, b in zip(text[::2], text[1::2], strict=True)]


def _others(ranges: Ranges) -> Ranges:
    """The characters that are in none of the ranges."""
    found, start = [], 0
    for first, last in sorted(ranges):
        if first > start:
            found.append((start, first - 1))
        start = max(start, last + 1)
    return [*found, (start, 0x10FFFF)]


def _folded(ranges: Ranges) -> Ranges:
    """With the letters in the other case, of all in Unicode."""
    letters = [chr(c) for first, last in ranges for c in range(first, last + 1)]
    cases = {ord(c) for a in letters for c in (a.lower(), a.upper(), *_ALSO.get(a.lower(), ""))}
    return [*ranges, *((c, c) for c in cases)]


def _written(ranges: Ranges) -> str:
    """Inside of [ ]."""
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_PERL = {"d": _ranges("09"), "w": _ranges("09AZaz__"), "s": _ranges("\t\n\f\r  ")}
_POSIX = {
    "alnum": _ranges("09AZaz"),
    "alpha": _ranges("AZaz"),
    "ascii": _ranges("\0\x7f"),
    "blank": _ranges("\t\t  "),
    "cntrl": _ranges("\0\x1f\x7f\x7f"),
    "digit": _ranges("09"),
    "graph": _ranges("!~"),
    "lower": _ranges("az"),
    "print": _ranges(" ~"),
    "punct": _ranges("!/:@[`{~"),
    "space": _ranges("\t\r  "),
    "upper": _ranges("AZ"),
    "word": _ranges("09AZaz__"),
    "xdigit": _ranges("09AFaf"),
}
_ESCAPES = {"A": r"(?:\A)", "z": r"(?:\Z)", "b": r"(?a:\b)", "B": r"(?a:\B)"}  # outside of [ ]
_ALSO = {"k": "\u212a", "s": "\u017f"}  # of the same letters
_ENDS = {"^": r"(?:\A)", "$": r"(?:\Z)"}
_LETTERS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAMED = re.compile(r"\(\?P?<\w+>")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_REPEATED = re.compile(r"[*+?]|\{(0|[1-9][0-9]*)(?:,(0|[1-9][0-9]*)?)?\}")
_MOST = 1000  # times that RE2 repeats


class _Group:
    """An open group: its flags, and the groups of Python's in it that change them."""

    def __init__(self, flags: str) -> None:
        self.flags = flags
        self.opened: list[str] = []


class _Translation:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.made: list[str] = []
        self.groups = [_Group("")]

    def run(self) -> str:
        while self.at < len(self.text):
            self._next()
        if len(self.groups) > 1:
            raise ValueError("missing )")
        return "".join(self.made) + ")" * len(self.groups[0].opened)

    def _next(self) -> None:
        sign = self.text[self.at]
        if sign == "\\":
            self._escape()
        elif sign == "[":
            self._class()
        elif sign == "(":
            self._open()
        elif _REPEATED.match(self.text, self.at):
            self._repeated()
        else:
            self.at += 1
            group = self.groups[-1]
            if sign == ")":
                if len(self.groups) == 1:
                    raise ValueError("unexpected )")
                self.made.append(")" * len(group.opened) + ")")
                self.groups.pop()
            elif sign == "|":
                self.made.append(")" * len(group.opened) + "|" + "".join(group.opened))
            elif sign in "^$":
                self.made.append(f"(?:{sign})" if "m" in group.flags else _ENDS[sign])
            else:
                self.made.append(sign if sign == "." else re.escape(sign))

    def _open(self) -> None:
        group = self.groups[-1]
        named, flags = (p.match(self.text, self.at) for p in (_NAMED, _FLAGS))
        if named is not None:
            self.at = named.end()
            self.made.append("(?:")
            self.groups.append(_Group(group.flags))
        elif flags is not None:
            self.at = flags.end()
            on, off = (set(part or "") - {"U"} for part in flags.group(1, 2))
            kept = "".join(sorted((set(group.flags) | on) - off))
            opened = self._opening(on - off, off)
            if flags[3] == ")":  # until the group's end, over its alternatives
                self.made.append(opened)
                group.opened.append(opened)
                group.flags = kept
            else:
                self.made.append(opened)
                self.groups.append(_Group(kept))
        elif self.text.startswith("(?", self.at):
            raise ValueError(f"{self.text[self.at : self.at + 4]} is not of RE2")
        else:
            self.at += 1
            self.made.append("(?:")
            self.groups.append(_Group(group.flags))

    @staticmethod
    def _opening(on: set[str], off: set[str]) -> str:
        minus = "-" + "".join(sorted(off)) if off else ""
        return f"(?{''.join(sorted(on))}{minus}:"

    def _repeated(self) -> None:
        found = _REPEATED.match(self.text, self.at)
        assert found is not None
        if max(int(times or 0) for times in found.groups()) > _MOST:
            raise ValueError(f"more than {_MOST} times")
        end = found.end() + self.text.startswith("?", found.end())
        if _REPEATED.match(self.text, end):
            raise ValueError("a repetition of a repetition")
        self.made.append(self.text[self.at : end])
        self.at = end

    def _escape(self) -> None:
        letter = self.text[self.at + 1 : self.at + 2]
        if letter == "Q":
            end = self.text.find(r"\E", self.at + 2)
            quoted = self.text[self.at + 2 : None if end < 0 else end]
            self.made.append(re.escape(quoted))
            self.at = len(self.text) if end < 0 else end + 2
        elif letter in _ESCAPES:
            self.made.append(_ESCAPES[letter])
            self.at += 2
        elif letter and letter.lower() in _PERL:
            self.made.append(f"[{_written(self._perl())}]")
        else:
            self.made.append(re.escape(self._character()))

    def _perl(self) -> Ranges:
        """Of the \\d, \\D and so on that stands here."""
        letter = self.text[self.at + 1]
        self.at += 2
        return self._of(_PERL[letter.lower()], letter.isupper())

    def _of(self, ranges: Ranges, negated: bool) -> Ranges:
        """A named class, or all but it; where case does not count, neither does it in there."""
        if not negated:
            return ranges
        return _others(_folded(ranges) if "i" in self.groups[-1].flags else ranges)

    def _character(self) -> str:
        """The one character that stands here, escaped or not."""
        sign = self.text[self.at]
        self.at += 1
        if sign != "\\":
            return sign
        for form, base in ((_HEX, 16), (_OCTAL, 8)):
            found = form.match(self.text, self.at)
            if found is not None:
                self.at = found.end()
                digits = found[0] if base == 8 else found[1] or found[2]
                return chr(int(digits, base))
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        if letter in _LETTERS:
            return _LETTERS[letter]
        if not letter.isascii() or letter.isalnum() or not letter:
            raise ValueError(f"\\{letter} is not of RE2, or not known")
        return letter

    def _class(self) -> None:
        self.at += 1
        negated = self.text.startswith("^", self.at)
        self.at += negated
        parts: list[str] = []
        while parts == [] or not self.text.startswith("]", self.at):
            if self.at >= len(self.text):
                raise ValueError("missing ]")
            parts.append(_written(self._item()))
        self.at += 1
        self.made.append(f"[{'^' if negated else ''}{''.join(parts)}]")

    def _item(self) -> Ranges:
        """A class, a character or a range of characters in [ ]."""
        if self.text.startswith("[:", self.at):
            end = self.text.find(":]", self.at + 2)
            if end >= 0:
                name = self.text[self.at + 2 : end]
                if name.removeprefix("^") not in _POSIX:
                    raise ValueError(f"[:{name}:] is no class of characters")
                self.at = end + 2
                return self._of(_POSIX[name.removeprefix("^")], name.startswith("^"))
        if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2].lower() in _PERL:
            return self._perl()
        first = last = self._character()
        if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
            self.at += 1
            if self.at >= len(self.text):
                raise ValueError("missing ]")
            last = self._character()
            if last < first:
                raise ValueError(f"{first}-{last} is no range")
        return [(ord(first), ord(last))]
