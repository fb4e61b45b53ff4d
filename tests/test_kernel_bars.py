"""tools/kernel_bars.py: what it reads in listings, predictions, bars that are not met."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

import kernel_bars
import kernel_listings as listings
from kernel_bars import Figures, worse
from kernel_gpus import GPUS
from kernel_isa import listing_of
from kernel_listings import Code
from kernel_models import Step
from kernel_predict import analysed, microseconds, resident

NVIDIA = """\
\t.text
        /*0000*/                   UMOV UR5, URZ ;
.L_x_1:
        /*0010*/                   LDG.E.128 R8, desc[UR4][R2.64] ;
        /*0020*/                   STS.128 [R20], R8 ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_2:
        /*0040*/                   LDS.128 R4, [R0+UR5] ;
        /*0050*/                   FFMA R10, R4, R5, R10 ;
        /*0060*/                   FFMA R11, R4, R6, R11 ;
        /*0070*/                   UIADD3 UR5, UR5, 0x104, URZ ;
        /*0080*/                   UISETP.NE.AND UP1, UPT, UR5, 0x1040, UPT ;
        /*0090*/               @P0 BRA `(.L_x_2) ;
        /*00a0*/               @P1 BRA `(.L_x_1) ;
        /*00b0*/                   EXIT ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3);
"""
AMD = """\
k:
\ts_movk_i32 s4, 0x0
.LBB0_1:                                ; =>This Inner Loop Header
\tds_read2_b32 v[0:1], v2 offset1:16
\tglobal_load_dwordx4 v[4:7], v[8:9], off
\ts_waitcnt lgkmcnt(0)
\tv_fmac_f32_e32 v3, v0, v1
\tv_mfma_f32_16x16x4f32 a[0:3], v0, v1, a[0:3]
\ts_add_i32 s4, s4, 2
\ts_cmp_lg_i32 s4, 16
\ts_cbranch_scc1 .LBB0_1
\ts_endpgm
"""
INTEL = """\
L0:
        mov (1|M0)               r4.0<1>:d     0:w
L16:
        send.dc1 (16|M0)         r12      r12     null:0  0x0  0x04205EFE  {$1} // wr:2+0, rd:2; untyped surface read with x
        mad (16|M0)              r20.0<1>:f    r20.0<1;0>:f      r12.0<1;0>:f      r7.1<0>:f
        dpas.8x8 (8|M0)          r30:f         r30:f             r40:hf            r50.0:hf
        add (1|M0)               r4.0<1>:d     r4.0<0;1,0>:d     1:w
(W)     cmp (1|M0)    (lt)f0.0   null<1>:d     r4.0<0;1,0>:d     16:w
(f0.0)  jmpi                     L16
"""  # noqa: E501


def test_loops_kinds_and_trips_of_nvidia():
    listing = listing_of(NVIDIA, "nvidia")
    outer, inner = listing.loops
    assert (outer.trips, inner.trips) == (None, 16)
    assert outer.holds(inner)
    assert listing.own(inner) == Counter({"ldl.128": 1, "fma": 2, "int": 2, "control": 1})
    assert listing.own(outer)["ldg.128"] == listing.own(outer)["barrier"] == 1


def test_loops_kinds_and_trips_of_amd():
    listing = listing_of(AMD, "amd")
    (loop,) = listing.loops
    own = listing.own(loop)
    assert loop.trips == 8
    assert (own["ldl.64"], own["ldg.128"], own["fma"], own["mma"], own["wait"]) == (1, 1, 1, 1, 1)


def test_loops_kinds_and_trips_of_intel():
    listing = listing_of(INTEL, "intel")
    (loop,) = listing.loops
    own = listing.own(loop)
    assert loop.trips == 16
    assert (own["ldl.32"], own["fma"], own["mma"]) == (1, 1, 1)


def test_a_branch_of_intel_goes_back_by_either_of_its_labels():
    back = "(f1.1)  goto.b (16|M0)           L96                  L16"
    (loop,) = listing_of(INTEL.replace("(f0.0)  jmpi                     L16", back), "intel").loops
    assert loop.trips == 16


def test_patch_tokens_of_intel_tell_local_memory_and_lanes(tmp_path):
    surface = "\t4 Token 15\n\t4 Size 16\n\tHex 0 0 0 0 0 84 0 0\n"
    words = " ".join(["0 1 0 0", "1 0 0 0", "1 0 0 0", "10 0 0 0"])
    environment = f"Unidentified PatchToken:\n\t4 Token 23\n\t4 Size 140\n\tHex {words}\n"
    (tmp_path / "PTM.txt").write_text(surface + environment)
    assert listings._intel_sizes(tmp_path, "k") == (0x8400, 0, 16)


def test_matrix_instructions_count_by_what_they_multiply():
    amd = analysed(Code(AMD, 32, 0, 0), GPUS["mi250"], 64)
    assert amd.matrix == {"f32": 16 * 16 * 4}
    intel = analysed(Code(INTEL, None, 0, 0), GPUS["a770"], 16)
    assert intel.matrix == {"half": 8 * 8 * 16}
    assert intel.bound > 1  # above what the float32 lanes could do


def test_wide_loads_and_the_loop_that_brings_tiles():
    found = analysed(Code(NVIDIA, 32, 8192, 0), GPUS["h200"], 256)
    assert (found.local_width, found.global_width, found.trips) == (128, 128, 16)
    assert found.share == pytest.approx(2 / 6)


def test_a_launch_of_few_groups_takes_as_long_as_one_that_fills_the_gpu():
    gpu = GPUS["h200"]
    kernel = analysed(Code(NVIDIA, 32, 8192, 0), gpu, 256)
    step = Step("", "k", "", "", 1, 256, 10**8, 1000)
    few = microseconds(gpu, step, kernel)
    full = replace(step, groups=gpu.units, flops=10**8 * gpu.units)
    many = microseconds(gpu, full, kernel)
    assert few == pytest.approx(many)
    assert microseconds(gpu, replace(full, flops=2 * full.flops), kernel) > 1.9 * many


def test_the_last_groups_of_a_unit_may_be_fewer_than_it_holds():
    gpu = GPUS["h200"]
    kernel = replace(analysed(Code(NVIDIA, 128, 8192, 0), gpu, 256), overlapped=True)
    assert resident(gpu, kernel, 256) == 2

    def takes(groups):
        step = Step("", "k", "", "", groups * gpu.units, 256, 10**8 * groups * gpu.units, 1000)
        return microseconds(gpu, step, kernel)

    assert takes(2) < takes(3) < takes(4)


def test_registers_and_local_memory_limit_the_groups_of_a_unit():
    gpu = GPUS["h200"]
    kernel = analysed(Code(NVIDIA, 128, 8192, 0), gpu, 256)
    assert resident(gpu, kernel, 256) == 2
    assert resident(gpu, replace(kernel, registers=32), 256) == 8
    assert resident(gpu, replace(kernel, registers=32, local=100 * 1024), 256) == 2


FIGURES = Figures("bert_base-1", "h200", 70, 0, 1.0, 0.7, 0.6, 0.9, 0, 0)
BAR = {
    "launches": 70, "host": 0, "milliseconds": 1.0, "bound": 0.7, "share": 0.6, "wide": 0.9,
    "spilling": 0, "refused": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"launches": 71}, "launches 71, the bar is 70"),
        ({"milliseconds": 1.2}, "milliseconds 1.2"),
        ({"bound": 0.6}, "bound 0.6, the bar is 0.7"),
        ({"wide": 0.8}, "wide"),
        ({"spilling": 1}, "spilling 1"),
        ({"refused": 1}, "refused 1"),
    ],
)
def test_a_figure_worse_than_its_bar_is_a_fault(now, said):
    (fault,) = worse([replace(FIGURES, **now)], {"bert_base-1 on h200": BAR})
    assert said in fault


def test_figures_within_the_tolerance_and_better_ones_are_none():
    known = {"bert_base-1 on h200": BAR}
    fine = [FIGURES, replace(FIGURES, milliseconds=1.05), replace(FIGURES, bound=0.9, launches=60)]
    assert worse(fine, known) == []


def test_a_case_without_a_bar_is_a_fault():
    assert "has no bar" in worse([FIGURES], {})[0]


def test_every_case_has_its_bar_on_every_default_gpu():
    names = {f"{case} on {gpu}" for case in kernel_bars.CASES for gpu in kernel_bars.DEFAULT_GPUS}
    assert set(kernel_bars.bars()) == names
    assert kernel_bars.table({"compilers": {}, "bars": kernel_bars.bars()}).split("\n\n")[0] in (
        kernel_bars.DOCUMENT.read_text()
    )


def test_missing_compilers_are_skipped_and_said(monkeypatch, capsys):
    monkeypatch.setattr(listings, "missing", lambda vendor: "clang not found")
    assert kernel_bars.main(["--check", "--gpu", "h200"]) == 0
    assert "skipped: NVIDIA H200: clang not found" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mi250", "h200", "a770"])
def test_a_real_kernel(name):
    gpu = GPUS[name]
    if listings.missing(gpu.vendor):
        pytest.skip(listings.missing(gpu.vendor))
    source = """
    __kernel __attribute__((reqd_work_group_size(64, 1, 1)))
    void dot(__global const float* a, __global const float* b, __global float* c, int n)
    {
        float sum = 0.0f;
        for (int i = get_local_id(0); i < n; i += 64)
            sum = fma(a[i], b[i], sum);
        c[get_global_id(0)] = sum;
    }
    """
    found = analysed(listings.compiled(source, "dot", "", gpu.arch, gpu.vendor), gpu, 64)
    assert found.adds > 0
    assert found.hot["fma"] > 0
    assert found.global_width >= 32
    assert 0 < found.share < 1
