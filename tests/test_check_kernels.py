"""tools/check_kernels.py: what it reads in compilers' output, its limits, and a quick run."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import check_kernels
import kernel_compilers as offline
import kernel_intel as intel
from kernel_report import Report, document
from kernel_units import Unit
from kernel_usage import Limits, Result, Usage, checked

UNIT = Unit("k", "__kernel void k() {}", "", (16, 16, 1), "model")
LIMITS = Limits(256, 65536, fp16=False, fp64=False, file=65536, wave=32, step=8)

AMD = """\
k.cl:60:1: remark: Function Name: attention [-Rpass-analysis=kernel-resource-usage]
{
^
k.cl:60:1: remark:     SGPRs: 82 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     VGPRs: 56 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     AGPRs: 4 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     ScratchSize [bytes/lane]: 24 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     Occupancy [waves/SIMD]: 8 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     SGPRs Spill: 0 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     VGPRs Spill: 5 [-Rpass-analysis=kernel-resource-usage]
k.cl:60:1: remark:     LDS Size [bytes/block]: 12672 [-Rpass-analysis=kernel-resource-usage]
"""
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'conv' for 'sm_80'
ptxas info    : Function properties for conv
    32 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 46 registers, used 1 barriers, 4160 bytes smem, 476 bytes cmem[0]
ptxas info    : Compile time = 53.483 ms
"""


def test_resource_usage_of_clang():
    usage = Usage(registers=60, spilled=20, local=12672, scratch=24, occupancy=8)
    assert offline.amd_usage(AMD, "attention") == usage
    with pytest.raises(offline.RefusedError, match="says nothing"):
        offline.amd_usage(AMD, "conv")


def test_resource_usage_of_ptxas():
    assert offline.ptxas_usage(PTXAS, "conv") == Usage(46, 16, 4160, 32)
    without = PTXAS.replace(" 4160 bytes smem,", "")
    assert offline.ptxas_usage(without, "conv").local == 0
    with pytest.raises(offline.RefusedError, match="says nothing"):
        offline.ptxas_usage(PTXAS, "attention")


@pytest.mark.parametrize(
    "line",
    [
        "ld.lld: error: undefined hidden symbol: foo",
        "ptxas fatal   : Unresolved extern function 'foo'",
        "k.cl:3:5: error: use of undeclared identifier 'x'",
        "error: undefined reference to `foo()'",
        "  0x40: INVALID opcode",
    ],
)
def test_errors_are_found_among_other_lines(line):
    assert offline.first_error(f"warning: 1\n{line}\nmore\n") == " ".join(line.split())


def test_no_error_where_there_is_none():
    assert offline.first_error(AMD) == ""
    assert offline.first_error(PTXAS) == ""


def test_undefined_symbols_of_a_linked_object():
    listing = "                 U foo\n0000000000000040 T k\n                 w bar\n"
    assert offline.undefined_symbols(listing) == ["foo", "bar"]


def test_external_functions_of_a_ptx_text():
    ptx = (
        ".extern .func  (.param .b32 r) foo\n(\n)\n;\n.visible .entry k(\n)\n"
        ".extern .func bar\n(\n)\n;\n.visible .func bar\n(\n)\n"
    )
    assert offline.external_functions(ptx) == ["foo"]


@pytest.mark.parametrize(
    ("unit", "usage", "fault"),
    [
        (
            replace(UNIT, group=(512, 1, 1)),
            Usage(),
            "groups of 512 work-items; the device takes 256",
        ),
        (UNIT, Usage(most_items=128), "the device takes 128"),
        (UNIT, Usage(local=70000), "70000 bytes of local memory; the device has 65536"),
        (UNIT, Usage(registers=257), "a group takes 67584 registers; the device has 65536"),
        (replace(UNIT, source="double x;"), None, "float64"),
        (replace(UNIT, source="half x = 1;"), None, "float16"),
    ],
)
def test_limits(unit, usage, fault):
    (found,) = checked(Result("x", unit, usage), LIMITS).faults
    assert fault in found


def test_what_fits_has_no_fault():
    source = "// double\n__kernel void k(__global const half* restrict x) {}"
    unit = replace(UNIT, source=source)
    assert checked(Result("x", unit, Usage(255, 0, 65536)), LIMITS).faults == ()


def test_report_and_document():
    result = Result("x", UNIT, Usage(64, 128, 4096, 256, 2048, 8), ("is wrong",))
    report = Report("x", "X", "clang 15", (result,))
    assert report.faults() == [f"X: {UNIT.name}: is wrong"]
    assert len(report.faults(most_spilled=100)) == 2
    text = document(
        [report],
        "a\n<!-- tables: written by tools/check_kernels.py -->\nold\n<!-- end of tables -->\nb\n",
    )
    assert "old" not in text
    assert f"`{UNIT.name}`" in text
    assert text.endswith("b\n")
    with pytest.raises(ValueError, match="no lines"):
        document([report], "nothing")


def test_a_missing_compiler_is_skipped_and_said(monkeypatch, capsys):
    monkeypatch.setattr(offline, "tool", lambda name: None)
    monkeypatch.setattr(intel, "missing", lambda: "intel-opencl-icd not found")
    assert check_kernels.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: AMD MI200 (gfx90a): clang not found" in printed
    assert "skipped: Intel Arc A770 (dg2): intel-opencl-icd not found" in printed


GPUS = [device for device in offline.DEVICES if device.name in ("gfx90a", "sm_80")]


@pytest.mark.parametrize("device", GPUS, ids=lambda device: device.name)
def test_an_unresolved_function_is_a_fault(device):
    if device.missing():
        pytest.skip(device.missing())
    source = "float foo(float);\n__kernel void k(__global float* x) { x[0] = foo(x[0]); }"
    (result,) = offline.compile_offline(device, [replace(UNIT, source=source)], 1)
    assert "foo" in result.faults[0]


@pytest.mark.parametrize("name", ["gfx90a", "sm_80", "dg2"])
def test_quick(name, capsys):
    gpu = next((device for device in offline.DEVICES if device.name == name), None)
    reason = intel.missing() if gpu is None else gpu.missing()
    if reason:
        pytest.skip(reason)
    code = check_kernels.main(["--quick", "--device", name, "--most-spilled", "4096"])
    assert code == 0, capsys.readouterr().out
