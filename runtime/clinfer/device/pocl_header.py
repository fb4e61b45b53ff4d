"""Declarations of just those built-in functions a source names, for PoCL.

PoCL's clang reads 15,000 declarations (opencl-c.h, 1 MB) twice for every program, which takes four
fifths of the time from text to LLVM IR. That header is left out where its guard is defined;
`declarations` writes what a source needs of it. For every name it writes all overloads that the
header has (but for `half`), so that a call means the same with either. A source that uses a
function not in the table does not compile this way, and is compiled with the whole header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

# As the options of a build: opencl-c.h takes itself for included.
WITHOUT_HEADER = "-D_OPENCL_H_"

_WIDTHS = ("", "2", "3", "4", "8", "16")
_FLOATS = {"float": "int", "double": "long"}
_SIGNED = {"char": "uchar", "short": "ushort", "int": "uint", "long": "ulong"}
_INTEGERS = {**_SIGNED, **{u: u for u in _SIGNED.values()}}
_OF_SAME_SIZE = {
    **_FLOATS,
    **{name: name for name in _SIGNED},
    **{u: name for name, u in _SIGNED.items()},
}
_SCALARS = (*_INTEGERS, *_FLOATS)
_SPACES = ("__constant", "__global", "__local", "__private")

# Signatures are 'result argument ...' in letters, for each scalar type S of the domain and width n:
#   T  S<n>        S  the scalar      I  int<n>
#   J  the signed integer of S's size, <n>         U  the unsigned one
#   B  what comparisons give: int for scalars, J for vectors
# Those after '|' are for vectors only.
_PLAIN = "__attribute__((overloadable, const))"
_DOMAINS = {"f": tuple(_FLOATS), "i": tuple(_INTEGERS), "s": tuple(_SIGNED), "a": _SCALARS}
_TABLE = (
    (
        "acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc exp exp2 exp10 expm1 fabs "
        "floor lgamma log log2 log10 log1p logb rint round rsqrt sin sinh sqrt tan tanh tgamma "
        "trunc sign degrees radians",
        "f",
        "TT",
    ),
    ("atan2 copysign fdim fmod hypot maxmag minmag nextafter pow powr remainder", "f", "TTT"),
    ("fmin fmax", "f", "TTT | TTS"),
    ("fma mad", "f", "TTTT"),
    ("ldexp", "f", "TTI | TTi"),
    ("pown rootn", "f", "TTI"),
    ("ilogb", "f", "IT"),
    ("step", "f", "TTT | TST"),
    ("mix", "f", "TTTT | TTTS"),
    ("isnan isinf isfinite isnormal signbit", "f", "BT"),
    (
        "isequal isnotequal isgreater isgreaterequal isless islessequal islessgreater isordered "
        "isunordered",
        "f",
        "BTT",
    ),
    ("min max", "a", "TTT | TTS"),
    ("clamp", "a", "TTTT | TTSS"),
    ("abs", "i", "UT"),
    ("abs_diff", "i", "UTT"),
    ("add_sat sub_sat hadd rhadd mul_hi rotate", "i", "TTT"),
    ("mad_hi mad_sat", "i", "TTTT"),
    ("clz popcount", "i", "TT"),
    ("any all", "s", "iT"),
    ("select", "a", "TTTJ TTTU"),
    ("bitselect", "a", "TTTT"),
)
_WORK_ITEM = (
    "get_global_size get_global_id get_local_size get_local_id get_num_groups get_group_id "
    "get_global_offset"
)
_NAME = re.compile(r"\b[a-z]\w*\b")
_CONVERT = re.compile(r"convert_([a-z]+)(2|3|4|8|16|)((?:_sat)?(?:_rt[ezpn])?)")
_VECTOR_ACCESS = re.compile(r"v(load|store)(2|3|4|8|16)")
_HALF_ACCESS = re.compile(r"v(load|store)(a?)_half(2|3|4|8|16|)((?:_rt[ezpn])?)")


def declarations(source: str) -> str:
    """The built-in functions that the text names, declared; one line without an end.

    Names of variables may be among them; a variable hides the function as it does with the header.
    """
    names = sorted(set(_NAME.findall(source)))
    return " ".join(line for name in names for line in declared(name))


@lru_cache(maxsize=1024)
def declared(name: str) -> tuple[str, ...]:
    """The declarations of one function; none where it is not in the table."""
    known = _by_name().get(name)
    if known is not None:
        return known
    for pattern, make in _FAMILIES:
        found = pattern.fullmatch(name)
        if found is not None:
            return tuple(make(name, *found.groups()))
    return ()


@lru_cache(maxsize=1)
def _by_name() -> dict[str, tuple[str, ...]]:
    made = {
        name: tuple(_overloads(name, _DOMAINS[domain], signatures))
        for names, domain, signatures in _TABLE
        for name in names.split()
    }
    for name in _WORK_ITEM.split():
        made[name] = (f"size_t {_PLAIN} {name}(uint);",)
    made["get_work_dim"] = (f"uint {_PLAIN} get_work_dim(void);",)
    convergent = "__attribute__((overloadable)) __attribute__((convergent))"
    made["barrier"] = (f"void {convergent} barrier(cl_mem_fence_flags);",)
    for fence in ("mem_fence", "read_mem_fence", "write_mem_fence"):
        made[fence] = (f"void __attribute__((overloadable)) {fence}(cl_mem_fence_flags);",)
    return made


def _overloads(name: str, scalars: tuple[str, ...], signatures: str) -> Iterator[str]:
    for_all, _, for_vectors = signatures.partition("|")
    for scalar in scalars:
        for width in _WIDTHS:
            texts = for_all.split() + (for_vectors.split() if width else [])
            for text in texts:
                result, *arguments = (_type(letter, scalar, width) for letter in text)
                yield f"{result} {_PLAIN} {name}({', '.join(arguments)});"


def _type(letter: str, scalar: str, width: str) -> str:
    signed = _OF_SAME_SIZE[scalar]
    return {
        "T": scalar + width,
        "S": scalar,
        "I": "int" + width,
        "i": "int",
        "J": signed + width,
        "U": _SIGNED[signed] + width,
        "B": signed + width if width else "int",
    }[letter]


def _conversions(name: str, result: str, width: str, _mode: str) -> Iterator[str]:
    if result in _SCALARS:
        for scalar in _SCALARS:
            yield f"{result}{width} {_PLAIN} {name}({scalar}{width});"


def _vector_accesses(name: str, kind: str, width: str) -> Iterator[str]:
    for scalar in _SCALARS:
        yield from _accesses(name, kind, scalar + width, scalar)


def _half_accesses(name: str, kind: str, _aligned: str, width: str, mode: str) -> Iterator[str]:
    if kind == "load" and not mode:
        yield from _accesses(name, kind, "float" + width, "half")
    if kind == "store":
        for scalar in _FLOATS:
            yield from _accesses(name, kind, scalar + width, "half")


def _accesses(name: str, kind: str, value: str, element: str) -> Iterator[str]:
    for space in _SPACES:
        if kind == "load":
            pure = "__attribute__((overloadable, pure))"
            yield f"{value} {pure} {name}(size_t, const {space} {element} *);"
        elif space != "__constant":
            plain = "__attribute__((overloadable))"
            yield f"void {plain} {name}({value}, size_t, {space} {element} *);"


_FAMILIES = (
    (_CONVERT, _conversions),
    (_VECTOR_ACCESS, _vector_accesses),
    (_HALF_ACCESS, _half_accesses),
)
