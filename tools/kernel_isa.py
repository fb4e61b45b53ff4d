"""Reads listings of three vendors' machine code: loops, and what kind each instruction is of.

Kinds: 'mma' a matrix instruction, 'fma' a float32 multiply-add, 'fma2' two in one, 'half' two
float16 operations, 'float', 'special' (exp, rsqrt ...), 'int', 'scalar', 'control', 'wait',
'barrier', 'spill'; and memory with the bits of a lane: 'ldl.128' from local memory, 'ldg.32' from
global, 'stl', 'stg'.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

Kinds = Counter[str]


class Line(NamedTuple):
    """A label or an instruction; the other is ''."""

    label: str
    text: str


@dataclass(frozen=True)
class Syntax:
    """How a vendor's listing reads. `branch` gives the labels that an instruction may go to,
    `kinds` are tried in order, `step`, `bound` and `start` read (register, number) of a loop's
    counter."""

    label: re.Pattern[str]
    instruction: re.Pattern[str]
    branch: re.Pattern[str]
    kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]
    step: re.Pattern[str]
    bound: re.Pattern[str]
    start: re.Pattern[str]


class Loop(NamedTuple):
    """Lines `first` to `last` of a listing; `trips` where the counter's bounds are constant."""

    first: int
    last: int
    trips: int | None

    def holds(self, other: Loop) -> bool:
        """Whether the other one lies inside, and is another."""
        inside = self.first <= other.first and other.last <= self.last
        return inside and (self.first, self.last) != (other.first, other.last)


# -- syntaxes --------------------------------------------------------------------------------------


def _is(kind: str) -> Callable[[re.Match[str]], str]:
    return lambda found: kind


def _nvidia_width(kind: str) -> Callable[[re.Match[str]], str]:
    def width(found: re.Match[str]) -> str:
        bits = re.search(r"[.](64|128)", found[0])
        return f"{kind}.{bits[1] if bits else 32}"

    return width


def _amd_local(kind: str) -> Callable[[re.Match[str]], str]:
    """ds_read2_b32 and ds_load_2addr_b32 take two."""

    def width(found: re.Match[str]) -> str:
        twice = 2 if re.search(r"(read|write)2|_2addr", found[0]) else 1
        bits = re.search(r"_[biuf](\d+)", found[0])
        return f"{kind}.{twice * int(bits[1] if bits else 32)}"

    return width


def _amd_global(kind: str) -> Callable[[re.Match[str]], str]:
    def width(found: re.Match[str]) -> str:
        words = re.search(r"dwordx(\d)", found[0])
        bits = re.search(r"_b(\d+)", found[0])
        return f"{kind}.{32 * int(words[1]) if words else int(bits[1]) if bits else 32}"

    return width


def _intel_message(found: re.Match[str]) -> str:
    """By the words of the disassembler; bits of a lane by 32-byte registers read or written."""
    lanes, text = int(found[1]), found[0]
    if "scratch" in text:
        return "spill"
    reads = re.search(r"\b(load|read)\b", text) is not None
    if not reads and re.search(r"\b(store|write)\b", text) is None:
        return "barrier" if "barrier" in text else "wait"
    near = "slm" in text or re.search(r"0x[0-9A-F]{6}FE\b", text) is not None
    count = re.search(r"rd:(\d+)" if reads else r"wr:\d+\w*\+(\d+)", text)
    bits = 256 * int(count[1]) // max(lanes, 8) if count else 32
    return f"{'ld' if reads else 'st'}{'l' if near else 'g'}.{bits}"


def _table(
    *rows: tuple[str, str | Callable[[re.Match[str]], str]],
) -> tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]:
    return tuple((re.compile(p), _is(k) if isinstance(k, str) else k) for p, k in rows)


_SYNTAX = {
    "nvidia": Syntax(
        label=re.compile(r"^(\.L_x_\d+):"),
        instruction=re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?(.*?)\s*;"),
        branch=re.compile(r"^BRA\b.*`\((\.L_x_\d+)\)"),
        kinds=_table(
            (r"^[HIDQB]G?MMA\S*", "mma"),
            (r"^FFMA2", "fma2"),
            (r"^FFMA", "fma"),
            (r"^HFMA2\S* R\d+, -RZ, RZ,", "int"),  # makes a constant
            (r"^H(FMA2|ADD2|MUL2)", "half"),
            (r"^F(ADD|MUL|SETP|SEL|MNMX|SET)", "float"),
            (r"^LDSM?\b\S*", _nvidia_width("ldl")),
            (r"^STS\S*", _nvidia_width("stl")),
            (r"^(LDG|LDGSTS|LD)\b\S*", _nvidia_width("ldg")),
            (r"^(STG|ST)\b\S*", _nvidia_width("stg")),
            (r"^(LDL|STL)\b", "spill"),
            (r"^BAR", "barrier"),
            (r"^MUFU", "special"),
            (r"^(BRA|EXIT|BSSY|BSYNC|NOP|WARPSYNC|CALL|RET)", "control"),
            (r"^(U?LDC|S2U?R|CS2R)", "scalar"),
        ),
        step=re.compile(
            r"^(?:U?IADD3?|VIADD)\S* (U?R\d+),(?: UPT,| PT,)* \1(?:\.reuse)?, (-?0x[0-9a-f]+)"
        ),
        bound=re.compile(r"^U?ISETP\S* .*?(U?R\d+)\S*, (-?0x[0-9a-f]+|U?RZ)"),
        start=re.compile(
            r"^(?:U?MOV|CS2R|IMAD\.MOV|HFMA2)\S* (U?R\d+),(?: -?RZ, RZ,)? (-?0x[0-9a-f]+|U?RZ|0, 0)"
        ),
    ),
    "amd": Syntax(
        label=re.compile(r"^(\.LBB\d+_\d+):"),
        instruction=re.compile(r"^\t([a-z][^;]*?)\s*(?:;.*)?$"),
        branch=re.compile(r"^s_c?branch\S*\s+(\.LBB\d+_\d+)"),
        kinds=_table(
            (r"^v_(s?mfmac?|wmma)\S*", "mma"),
            (r"^v_(pk_fma_f32|dual_fmac\S* .*::.*v_dual_fmac)", "fma2"),
            (r"^v_(fma|fmac|mac|mad|dual_fmac|dual_fmaak)_f32", "fma"),
            (r"^v_(pk_fma_f16|dot\d)", "half"),
            (r"^v_(exp|log|rcp|rsq|sqrt|sin|cos)_f32", "special"),
            (r"^v_\S+_f(16|32|64)", "float"),
            (r"^ds_(read|load)\S*", _amd_local("ldl")),
            (r"^ds_(write|store)\S*", _amd_local("stl")),
            (r"^(global|flat|buffer)_load\S*", _amd_global("ldg")),
            (r"^(global|flat|buffer)_store\S*", _amd_global("stg")),
            (r"^scratch_", "spill"),
            (r"^s_barrier", "barrier"),
            (r"^s_(waitcnt|nop|delay_alu)", "wait"),
            (r"^s_", "scalar"),
        ),
        step=re.compile(r"^s_addk?_[iu]32 (s\d+),(?: \1,)? (-?(?:0x)?[0-9a-f]+)\b"),
        bound=re.compile(r"^s_cmpk?_\w+ (s\d+), (-?(?:0x)?[0-9a-f]+)\b"),
        start=re.compile(r"^s_movk?_[ib]32 (s\d+), (-?(?:0x)?[0-9a-f]+)\b"),
    ),
    "intel": Syntax(
        label=re.compile(r"^(L\d+):"),
        instruction=re.compile(r"^(?:\([^)]*\))?\s*([a-z]\S* .*\S)\s*$"),
        branch=re.compile(r"^(?:goto|jmpi|brd|brc|while)\b.*?\b(L\d+)\b(?:\s+(L\d+)\b)?"),
        kinds=_table(
            (r"^dpas\S*", "mma"),
            (r"^(mad|mac)\b.*:f\b", "fma"),
            (r"^(mad|mac|add|mul)\b.*:hf\b", "half"),
            (r"^math\b", "special"),
            (r"^(add|mul|sel|cmp|mov)\b.*:f\b", "float"),
            (r"^sends?c?\S*\s+\((\d+)\|.*", _intel_message),
            (r"^sync\.bar", "barrier"),
            (r"^(goto|jmpi|join|brd|brc|while|endif|else|if)\b", "control"),
            (r"^(sync|nop)\b", "wait"),
        ),
        step=re.compile(r"^add\s+\(1\|M\d+\)\s+(r\d+\.\d+)<\S+\s+\1<\S+\s+(-?\d+|0x[0-9A-F]+):"),
        bound=re.compile(r"^cmp\s.*?\s(r\d+\.\d+)<\S+\s+(-?\d+|0x[0-9A-F]+):"),
        start=re.compile(r"^mov\s+\(1\|M\d+\)\s+(r\d+\.\d+)<\S+\s+(-?\d+|0x[0-9A-F]+):"),
    ),
}


# -- reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """A kernel's code."""

    syntax: Syntax
    lines: tuple[Line, ...]
    loops: tuple[Loop, ...]

    def kind(self, text: str) -> str:
        """What an instruction is."""
        for pattern, name in self.syntax.kinds:
            found = pattern.search(text)
            if found:
                return name(found)
        return "int"

    def kinds(self, first: int, last: int, without: Sequence[Loop] = ()) -> Kinds:
        """Counts of a range of lines, but of those inside some loops."""
        return Counter(
            self.kind(line.text)
            for number, line in enumerate(self.lines[first : last + 1], first)
            if line.text and not any(loop.first <= number <= loop.last for loop in without)
        )

    def own(self, loop: Loop) -> Kinds:
        """Counts of a loop's body without the loops inside it."""
        return self.kinds(loop.first, loop.last, [x for x in self.loops if loop.holds(x)])

    def depth(self, loop: Loop) -> int:
        """In how many loops it lies."""
        return sum(other.holds(loop) for other in self.loops)

    @property
    def instructions(self) -> int:
        """All of them."""
        return sum(1 for line in self.lines if line.text)


def listing_of(text: str, vendor: str) -> Listing:
    """Reads a listing of 'nvidia' (nvdisasm -c), 'amd' (clang -S) or 'intel' (ocloc disasm)."""
    syntax = _SYNTAX[vendor]
    lines = []
    for raw in text.splitlines():
        label = syntax.label.match(raw)
        if label:
            lines.append(Line(label[1], ""))
            continue
        instruction = syntax.instruction.match(raw)
        if instruction:
            lines.append(Line("", instruction[1]))
    return Listing(syntax, tuple(lines), _loops(syntax, lines))


def _loops(syntax: Syntax, lines: Sequence[Line]) -> tuple[Loop, ...]:
    """From backward branches, the farthest to each label."""
    at = {line.label: number for number, line in enumerate(lines) if line.label}
    ends: dict[int, int] = {}
    for number, line in enumerate(lines):
        found = syntax.branch.match(line.text) if line.text else None
        for label in found.groups() if found else ():
            if at.get(label, number) < number:
                ends[at[label]] = number
    spans = [(first, last) for first, last in sorted(ends.items()) if last - first > 2]
    return tuple(Loop(*span, _trips(syntax, lines, span, spans)) for span in spans)


def _trips(
    syntax: Syntax, lines: Sequence[Line], span: tuple[int, int], spans: Sequence[tuple[int, int]]
) -> int | None:
    """How often a loop with a constant start, step and bound of its counter runs."""
    first, last = span
    inner = [(a, b) for a, b in spans if (a, b) != span and first <= a and b <= last]
    own = (n for n in range(first, last + 1) if not any(a <= n <= b for a, b in inner))
    body = [lines[number].text for number in own]
    bounds = [found for text in body if (found := syntax.bound.match(text))]
    steps = [found for text in body if (found := syntax.step.match(text))]
    for bound in reversed(bounds):
        step = next((found for found in steps if found[1] == bound[1]), None)
        if step is None or _number(step[2]) == 0:
            continue
        before = (syntax.start.match(line.text) for line in reversed(lines[:first]))
        start = next((found for found in before if found and found[1] == bound[1]), None)
        if start is not None:
            trips = ceil((_number(bound[2]) - _number(start[2])) / _number(step[2]))
            tested, stepped = body.index(bound.string), body.index(step.string)
            exits = [n for n in range(tested, stepped) if syntax.branch.match(body[n])]
            if exits and 2 * exits[0] > len(body):
                trips += 1  # a turn ends with the test and the exit, and only then with the step
            return trips if trips > 1 else None
    return None


def _number(text: str) -> int:
    return 0 if text.endswith("RZ") or "," in text else int(text, 0)
