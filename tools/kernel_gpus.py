"""GPUs that tools/kernel_bars.py predicts for: what lowering sees of them, and their rates.

Rates are the vendors' published peaks; latencies and launches are assumed (no GPU was at hand:
tools/gpu_first_run.py measures them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clinfer_kernels.contraction.matrix_units import available
from clinfer_kernels.contraction.units_intel import DPAS
from clinfer_kernels.spec import Target

_SUB_GROUP = re.compile(r"intel_reqd_sub_group_size\((\d+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU; `units` run work-groups: multiprocessors, compute units, Xe cores.

    Of a unit and clock: `lanes` float32 multiply-adds, `issues` instructions of a wave (of vectors
    on AMD), `local_bytes` from local memory, `matrix` multiply-adds of matrix instructions by
    kind of operand. Of a unit: `registers` (32 bits; 0 where they are not shared), `items` in
    flight, `local` bytes. `clock` in GHz, `memory` and `cache` (the last level) in GB/s; `latency`
    of a load from global memory, in clocks; `launch` in microseconds.
    """

    name: str
    title: str
    arch: str
    vendor: str
    target: Target
    units: int
    clock: float
    lanes: int
    issues: float
    local_bytes: int
    wave: int
    registers: int
    items: int
    local: int
    memory: float
    cache: float
    latency: int
    launch: float
    matrix: Mapping[str, float] = field(default_factory=dict)

    def running(self, source: str) -> Gpu:
        """As a kernel sees it: with sub-groups of the size that its text asks for."""
        size = _SUB_GROUP.search(source)
        return replace(self, wave=int(size[1])) if size else self

    @property
    def peak(self) -> float:
        """10^9 float32 operations per second of multiply-adds."""
        return 2 * self.units * self.lanes * self.clock


_NVIDIA = Target(
    cls="gpu",
    vendor="nvidia",
    vector_width=4,
    max_work_group=1024,
    local_mem=49152,
    dialect="nvidia",
    matrix_units=available((8, 0), "", ()),
)
_AMD = Target(
    cls="gpu",
    vendor="amd",
    vector_width=4,
    max_work_group=256,
    local_mem=65536,
    fp16=True,
    dialect="amd",
    extensions=frozenset({"cl_khr_fp16"}),
)
_INTEL = Target(
    cls="gpu",
    vendor="intel",
    vector_width=4,
    max_work_group=1024,
    local_mem=65536,
    fp16=True,
    fp64=False,
    dialect="intel",
    subgroup_sizes=(8, 16, 32),
    extensions=frozenset({"cl_khr_fp16", "cl_intel_subgroups", "cl_khr_subgroups"}),
    matrix_units=available((0, 0), "", {DPAS}, (8, 16, 32)),
)


def _amd(name: str, units: int) -> Target:
    known = available((0, 0), name, ())
    return _AMD._replace(architecture=name, compute_units=units, matrix_units=known)


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            name="h200",
            title="NVIDIA H200",
            arch="sm_90",
            vendor="nvidia",
            target=_NVIDIA._replace(compute_units=132),
            units=132,
            clock=1.98,
            lanes=128,
            issues=4,
            local_bytes=128,
            wave=32,
            registers=65536,
            items=2048,
            local=228 * 1024,
            memory=4800,
            cache=7000,
            latency=500,
            launch=4,
            # mma.sync: 62 % of what wgmma, which OpenCL C does not reach, has (Luo et al.,
            # "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture", 2024).
            matrix={"tf32": 585, "half": 1170, "int8": 2340},
        ),
        Gpu(
            name="rtx3090",
            title="NVIDIA RTX 3090",
            arch="sm_86",
            vendor="nvidia",
            target=_NVIDIA._replace(compute_units=82),
            units=82,
            clock=1.70,
            lanes=128,
            issues=4,
            local_bytes=128,
            wave=32,
            registers=65536,
            items=1536,
            local=100 * 1024,
            memory=936,
            cache=2500,
            latency=450,
            launch=4,
            matrix={"tf32": 128, "half": 256, "int8": 1024},
        ),
        Gpu(
            name="mi250",
            title="AMD MI250 (one die)",
            arch="gfx90a",
            vendor="amd",
            target=_amd("gfx90a", 104),
            units=104,
            clock=1.70,
            lanes=128,
            issues=1,
            local_bytes=128,
            wave=64,
            registers=4 * 64 * 512,
            items=2048,
            local=64 * 1024,
            memory=1600,
            cache=3500,
            latency=700,
            launch=6,
            matrix={"f32": 128, "half": 512, "int8": 512},
        ),
        Gpu(
            name="mi300x",
            title="AMD MI300X",
            arch="gfx942",
            vendor="amd",
            target=_amd("gfx942", 304),
            units=304,
            clock=2.1,
            lanes=128,
            issues=1,
            local_bytes=128,
            wave=64,
            registers=4 * 64 * 512,
            items=2048,
            local=64 * 1024,
            memory=5300,
            cache=12000,
            latency=700,
            launch=6,
            matrix={"f32": 128, "half": 1024, "int8": 2048},
        ),
        Gpu(
            name="rx7900",
            title="AMD RX 7900 XTX",
            arch="gfx1100",
            vendor="amd",
            target=_amd("gfx1100", 48),
            units=96,
            clock=2.5,
            lanes=128,
            issues=2,
            local_bytes=128,
            wave=32,
            registers=2 * 32 * 1536,
            items=2048,
            local=64 * 1024,
            memory=960,
            cache=3500,
            latency=550,
            launch=6,
            matrix={"half": 256, "int8": 256},
        ),
        Gpu(
            name="a770",
            title="Intel Arc A770",
            arch="dg2",
            vendor="intel",
            target=_INTEL._replace(compute_units=512),
            units=32,
            clock=2.1,
            lanes=128,
            issues=8,
            local_bytes=128,
            wave=16,
            registers=128 * 1024,
            items=2048,
            local=128 * 1024,
            memory=560,
            cache=2000,
            latency=600,
            launch=8,
            matrix={"half": 1024, "int8": 2048},
        ),
    )
}
