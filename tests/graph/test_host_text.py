"""Text on the host: patterns in RE2's syntax, what differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_helpers import by_onnxruntime, proto, run

from clinfer.errors import InputError, ModelError
from clinfer.graph.reader import read

TEXTS = [
    *["", "a", "ab", "aB", "aaa", "\u00c9", "a1", "_", "]", "-", "a\n", "a\nb", " ", "\v", "a\0"],
    *["{,3}", "\u0663", "\u017f", "K", "\u212a", "me@x.org", "a.b", "\U0001f600"],
]


def _both(source: Any, x: Any) -> tuple[list[Any], list[Any]]:
    for output in source.graph.output:
        output.type.tensor_type.ClearField("shape")
    return run(read(source).graph(), [x]), by_onnxruntime(source, {"x": x})


@pytest.mark.parametrize(
    "pattern",
    [
        *["[[:alpha:]]+", "[[:^alpha:]_]*", "[^[:space:][:digit:]-]+", "(?i)[[:^upper:]]"],
        *[r"\\w+", r"\\D", r"(?i)\\W", r"[\\s\\d]", r"[^\\W]+", r"\\b\u00c9", r"a\\z", r"a$\\n"],
        *["(?m)a$\\\\n^b", "(?s)a.b", "a(?i)b|c", "(?U)a+?", "a{,3}|{,3}", "a{01}", r"\\Qa.b\\E"],
        *[r"[\\w.]+@\\w+\\.\\w{2,}", "[]a-]", r"\\x{1F600}", "(?P<n>a)(?<n>b)", "(?i)k", "a$*"],
    ],
)
def test_patterns_are_those_of_re2(pattern: str) -> None:
    text = 'm (string[n] x) => (bool[n] y) { y = RegexFullMatch<pattern = "PATTERN">(x) }'
    source = proto(text.replace("PATTERN", pattern), 20)
    (found,), (wanted,) = _both(source, np.array(TEXTS, object))
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("pattern", ["[[:foo:]]", "(?=a)a", "(a)\\1", "a**", "[b-a]", "(a", "\\pL"])
def test_what_re2_has_not_is_refused(pattern: str) -> None:
    source = proto('m (string[n] x) => (bool[n] y) { y = RegexFullMatch<pattern = "">(x) }', 20)
    source.graph.node[0].attribute[0].s = pattern.encode()
    with pytest.raises(ModelError, match=r"RegexFullMatch.*in RE2's syntax"):
        run(read(source).graph(), [np.array(["a"], object)])


@pytest.mark.parametrize("kind", ["float", "string"])
@pytest.mark.parametrize("attrs", ["sorted = 0", "axis = 0", "axis = -1, sorted = 0"])
@pytest.mark.parametrize("names", ["y", "y, first, inverse, counts"])
def test_what_differs_in_order_or_as_it_is_met(kind: str, attrs: str, names: str) -> None:
    typed = names.replace("y", f"{kind} y").replace(", ", ", int64 ")
    text = f"m ({kind}[3, 4] x) => ({typed}) {{ {names} = Unique<{attrs}>(x) }}"
    x = np.array([[3, 1, 3, 0], [2, 1, 2, 1], [3, 1, 3, 0]], np.float32)
    if kind == "string":
        x = np.array(["a\0", "a", "\u00c9", ""], object)[x.astype(int)]
    found, wanted = _both(proto(text, 18), x)
    assert [part.tolist() for part in found] == [part.tolist() for part in wanted]
    assert [part.shape for part in found] == [part.shape for part in wanted]


NUMBERS = ["1", " -7", "1.5", "1e3", "1_0", "1 ", "1\0", "300", "99999999999"]
FLOATS = ["0x1.8p2", "-INF", "NaN", ".5", "5.", "1e-50", "1f", "+infinity", "2147483647.5"]
KINDS = {"float": 1, "uint8": 2, "int32": 6, "int64": 7, "string": 8, "bool": 9}
KINDS |= {"float16": 10, "double": 11, "uint32": 12, "uint64": 13}


def _cast(kind: str, to: str) -> Any:
    return proto(f"m ({kind}[n] x) => ({to}[n] y) {{ y = Cast<to = {KINDS[to]}>(x) }}", 18)


@pytest.mark.parametrize("to", KINDS)
def test_what_text_is_as_numbers(to: str) -> None:
    """The number it begins with; text keeps zeros at its end."""
    more = {"string": TEXTS, "bool": ["0", "2"], "uint64": [str((1 << 64) - 1)]}.get(to, [])
    more = FLOATS if to in ("float", "double", "float16") else more
    (found,), (wanted,) = _both(_cast("string", to), np.array([*NUMBERS, *more], object))
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("text", "to"), [("a", "float"), ("", "int64"), ("true", "bool")])
def test_what_is_no_number_is_refused(text: str, to: str) -> None:
    with pytest.raises(InputError, match=r"Cast.* that begins with"):
        run(read(_cast("string", to)).graph(), [np.array([text], object)])


@pytest.mark.parametrize("kind", ["float", "double", "float16", "int64", "bool"])
def test_numbers_as_text(kind: str) -> None:
    content = [0, -0.0, 1, 0.1, 1e-5, 1234567, 123456789, 1 / 3, 1e20, np.inf, -np.inf, np.nan]
    content = [0, 1, -7, 1 << 40] if kind == "int64" else content
    with np.errstate(all="ignore"):
        x = np.array(content).astype({"float": np.float32}.get(kind, kind))
    (found,), (wanted,) = _both(_cast(kind, "string"), x)
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("body", ["Tile(x, i)", "Slice(x, i, j)", "SequenceAt(s, k)"])
def test_what_moves_text_keeps_its_zeros(body: str) -> None:
    made = "k = Constant<value_int = 0>() s = SequenceConstruct(x) "
    made += "i = Constant<value_ints = [2]>() j = Constant<value_ints = [90]>()"
    source = proto(f"m (string[n] x) => (string[] y) {{ {made} y = {body} }}", 18)
    (found,), (wanted,) = _both(source, np.array(TEXTS, object))
    assert found.tolist() == wanted.tolist()
