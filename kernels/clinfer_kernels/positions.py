"""Positions that come from data: what kernels do with an index that is outside its axis.

No index, whatever it is, leads outside a buffer. `Signature.status` gives a kernel two parameters:

    status   64-bit words of the request. Word 0 is 0, or the slot of the first launch that has met
             an index outside its axis; word n is such an index, found by the check of slot n
    slot     the launch's first slot: one for each component of its index tuples

Launches run one after another, so a later one sees what an earlier one wrote and leaves it. All
work-items of a launch write the same slot, so that they need no atomics.

    place_wrapped    counted from the end where negative, as ONNX's gathers and scatters do
    place_natural    never negative
    place_clamped    the nearest that there is; nothing is reported

An axis without elements has no place: the first two answer -1 as for every index outside; who uses
the third makes sure that there are some. Loops over many indices go without branches: `near` is a
place for each, the union of their `span`s tells whether to look for one outside.
"""

from __future__ import annotations

_REPORT = """\
static void report_index(__global long* status, int slot, long index) {
    status[slot] = index;
    if (!status[0]) status[0] = slot;
}"""

_NEAR = """\
static int near_$rule(long index, int size) {
    const int low = (int)index;
    return clamp($low, 0, size - 1);
}"""

# Both sums are at least 0 inside, and one of them is not outside, though it may wrap.
_SPAN = """\
static long span_$rule(long index, int size) {
    return (long)($start | ((ulong)(size - 1) - (ulong)index));
}"""

_PLACE = """\
static int place_$rule(long index, int size, __global long* status, int slot) {
    const long place = $place;
    if (place >= 0 && place < size) return (int)place;
    report_index(status, slot, index);
    return -1;
}"""

_CLAMPED = """\
static int place_clamped(long index, int size) {
    return (int)clamp(index, 0L, (long)size - 1);
}"""

_RULES = {
    "wrapped": {
        "$place": "index < 0 ? index + size : index",
        "$low": "low < 0 ? low + size : low",
        "$start": "((ulong)index + (ulong)size)",
    },
    "natural": {"$place": "index", "$low": "low", "$start": "(ulong)index"},
}


def _filled(text: str, rule: str) -> str:
    for name, value in _RULES[rule].items():
        text = text.replace(name, value)
    return text.replace("$rule", rule)


_HELPERS = {"report_index": _REPORT, "place_clamped": _CLAMPED} | {
    f"{name}_{rule}": _filled(text, rule)
    for name, text in (("near", _NEAR), ("span", _SPAN), ("place", _PLACE))
    for rule in _RULES
}


def helper(name: str) -> str | None:
    """The text of the function `name`; None where this module has no such function."""
    return _HELPERS.get(name)


def place(rule: str, index: str, size: str, number: int = 0) -> str:
    """C for the place of an index, -1 outside the axis; `number` counts the launch's checks."""
    if rule == "clamped":
        return f"place_clamped({index}, {size})"
    return f"place_{rule}({index}, {size}, status, slot + {number})"


def near(rule: str, index: str, size: str) -> str:
    """C for a place of an axis that has some: that of the index where it is inside."""
    return f"near_{rule}({index}, {size})"


def span(rule: str, index: str, size: str) -> str:
    """C for a long that is negative where the index is outside its axis."""
    return f"span_{rule}({index}, {size})"


def is_checked(rule: str) -> bool:
    """Whether an index outside its axis is reported."""
    return rule != "clamped"
