"""Declarations by need: the same as the driver's own header, and the same results."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from clinfer.device import pocl_header
from clinfer.device.compiling import compile_source
from clinfer.device.discover import open_device
from clinfer.device.driver import loaded_libraries
from clinfer.device.opencl import cl
from clinfer.device.sources import SourceProgram

WIDTHS = ("", "2", "3", "4", "8", "16")
# Blocks of the header that hold for other devices or versions of the language than ours.
OTHERS = re.compile(
    r"generic_address_space|cl_khr_fp16|>= CL_VERSION_2_0|CL_VERSION_3|amd|intel|arm"
)
ATTRIBUTES = {
    "__ovld": "o",
    "__cnfn": "c",
    "__purefn": "p",
    "__conv": "v",
    "__attribute__((overloadable, const))": "o c",
    "__attribute__((overloadable, pure))": "o p",
    "__attribute__((overloadable)) __attribute__((convergent))": "o v",
    "__attribute__((overloadable))": "o",
}


def table_names() -> list[str]:
    names = set(pocl_header._by_name())
    integers = ("char", "int", "uchar", "long")
    names |= {f"convert_{t}{w}{m}" for t in integers for w in WIDTHS for m in ("", "_sat", "_rte")}
    names |= {
        f"convert_{t}{w}{m}" for t in ("float", "double") for w in WIDTHS for m in ("", "_rtz")
    }
    names |= {f"v{kind}{w}" for kind in ("load", "store") for w in WIDTHS[1:]}
    names |= {f"vload{a}_half{w}" for a in ("", "a") for w in WIDTHS[1:]} | {"vload_half"}
    names |= {f"vstore_half{w}{m}" for w in WIDTHS for m in ("", "_rte", "_rtz")}
    return sorted(names)


def signature(declaration: str) -> tuple[str, str] | None:
    """(name, 'result attributes arguments') without the names of arguments."""
    for long, short in ATTRIBUTES.items():
        declaration = declaration.replace(long, f"@{' @'.join(short.split())}")
    found = re.match(r"\s*(\w+) ((?:@\w ?)+)\s*(\w+)\((.*)\);", declaration)
    if found is None:
        return None
    result, attributes, name, arguments = found.groups()
    plain = []
    for argument in arguments.replace("unsigned int", "uint").split(","):
        words = re.findall(r"\w+|\*", argument)
        if len(words) > 1 and words[-1] != "*":
            words = words[:-1]
        plain.append(" ".join(w for w in words if w not in ("__private", "void")))
    return name, f"{result} {''.join(sorted(attributes))} {'; '.join(plain)}"


@lru_cache(maxsize=1)
def of_the_driver() -> dict[str, set[str]]:
    """What opencl-c.h of the loaded PoCL declares, by name; `half` in registers left out."""
    open_device("CPU")
    places = ("../share/pocl", "../../pocl_binary_distribution/.libs/share/pocl")
    files = [
        path.parent / place / "include" / "opencl-c.h"
        for path in loaded_libraries("libpocl")
        for place in places
    ]
    header = next((file for file in files if file.exists()), None)
    if header is None:
        pytest.skip("this PoCL has its header elsewhere")
    declared: dict[str, set[str]] = {}
    for statement in " ".join(lines_for_us(header)).split(";"):
        found = signature(statement.strip() + ";")
        if found is not None and not re.search(r"\bhalf\d*\b(?! \*)", found[1]):
            declared.setdefault(found[0], set()).add(found[1])
    return declared


def lines_for_us(header: Path) -> list[str]:
    text = re.sub(r"/\*.*?\*/|\\\n", "", header.read_text(), flags=re.DOTALL)
    kept, stack = [], []
    for line in re.sub(r"//.*", "", text).splitlines():
        word = line.strip()
        if word.startswith("#if"):
            stack.append(word.startswith("#ifndef") or not OTHERS.search(word))
        elif word.startswith("#else"):
            stack[-1] = not stack[-1]
        elif word.startswith("#endif"):
            stack.pop()
        elif all(stack) and not word.startswith("#"):
            kept.append(word)
    return kept


@pytest.mark.parametrize("start", range(0, len(table_names()), 40))
def test_every_overload_is_the_headers(start):
    for name in table_names()[start : start + 40]:
        ours = {signature(line)[1] for line in pocl_header.declared(name)}
        assert ours == of_the_driver().get(name), name


def test_names_that_are_no_functions_declare_nothing():
    assert pocl_header.declarations("int value = rows * columns; // convert_nothing4") == ""


def run(source: SourceProgram, short: bool, x: np.ndarray) -> np.ndarray:

    device = open_device("CPU")
    program = compile_source(device.context, source, device.quirks._replace(short_header=short))
    flags = cl().mem_flags.READ_WRITE | cl().mem_flags.COPY_HOST_PTR
    buffer = cl().Buffer(device.context, flags, hostbuf=x)
    kernel = cl().Kernel(program, source.entry)
    kernel.set_arg(0, buffer)
    queue = device.new_queue()
    cl().enqueue_nd_range_kernel(queue, kernel, (1,), (1,))
    result = np.empty_like(x)
    cl().enqueue_copy(queue, result, buffer)
    return result


@pytest.mark.parametrize(
    "expression",
    [
        "exp(x[i]) + pow(x[i], 3.0)",
        "fmin(max(x[i], 0.25), select(x[i], 2.0, (long)(x[i] > 1.0)))",
        "(double)convert_int_rte(x[i] * 3.0) + vload2(0, x).y",
        "dot((double2)(x[i], 1.0), (double2)(2.0, 3.0))",  # not in the table: the whole header
    ],
)
def test_results_are_those_with_the_whole_header(expression, monkeypatch):
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "Portable")
    text = (
        "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
        "void compute(__global double *x)\n"
        f"{{\n    for (int i = 0; i < 4; i++)\n        x[i] = {expression};\n}}\n"
    )
    source = SourceProgram(text, "", "compute")
    x = np.array([0.1, 0.7, 1.3, 2.9])
    np.testing.assert_array_equal(run(source, True, x), run(source, False, x))
