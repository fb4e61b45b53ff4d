"""The stages of tools/gpu_first_run.py: each yields rows (name -> value) as soon as it has them."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyopencl as cl

import gpu_units
from gpu_probe import STANDARD, Probe, fastest

Row = dict[str, Any]
Stage = Callable[[Probe, Path, list[Path]], Iterator[Row]]

_NVIDIA_FIELDS = "driver_version,clocks.max.sm,clocks.max.mem,power.limit"
_TOOLS = (
    ("nvidia-smi", f"--query-gpu={_NVIDIA_FIELDS}", "--format=csv"),
    ("rocm-smi", "--showproductname"),
    ("lscpu",),
)
_ASKED = (  # noqa: SIM905
    "name vendor version driver_version opencl_c_version max_compute_units max_work_group_size "
    "max_work_item_sizes local_mem_size global_mem_size max_mem_alloc_size mem_base_addr_align "
    "max_constant_buffer_size max_clock_frequency profiling_timer_resolution host_unified_memory "
    "half_fp_config single_fp_config svm_capabilities max_num_sub_groups il_version "
    "compute_capability_major_nv compute_capability_minor_nv registers_per_block_nv warp_size_nv "
    "gpu_overlap_nv attribute_async_engine_count_nv simd_per_compute_unit_amd wavefront_width_amd "
    "local_mem_banks_amd extensions"
).split()
_FP16 = "#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n"
_KERNEL = "__kernel void k(__global float* o, __global const ushort* h, int n) {{ {body} }}"
_LANGUAGE = (
    ("plain", "", "o[get_global_id(0)] = n;", ""),
    ("half without the pragma", "", "half x = (half)o[0]; o[0] = (float)(x * x);", ""),
    ("half arithmetic", _FP16, "half x = (half)o[0]; o[0] = (float)(x * x);", ""),
    (
        "half2 arithmetic, fma, exp",
        _FP16,
        "half2 x = (half2)((half)o[0], (half)o[1]); x = fma(x, x, x); o[0] = exp(x.x);",
        "",
    ),
    ("half as a private array", _FP16, "half x[4]; x[n & 3] = (half)o[0]; o[0] = x[0];", ""),
    ("vload_half", "", "o[0] = vload_half(n, (__global const half*)h);", ""),
    ("vload_half4", "", "float4 x = vload_half4(n, (__global const half*)h); o[0] = x.x;", ""),
    ("vstore_half", "", "vstore_half(o[0], n, (__global half*)o);", ""),
    ("vstore_half4_rte", "", "vstore_half4_rte((float4)(o[0]), n, (__global half*)o);", ""),
    ("long arguments of builtins", "", "o[0] = (float)mul_hi((uint)n, 77u);", ""),
    ("PTX: __asm__", "", '__asm__ volatile ("mov.u32 %0, %%laneid;" : "=r"(n)); o[0] = n;', ""),
    ("PTX: asm", "", 'asm volatile ("mov.u32 %0, %%laneid;" : "=r"(n)); o[0] = n;', ""),
    (
        "PTX: shuffle",
        "",
        "float x = o[get_global_id(0)], y; __asm__ volatile "
        '("shfl.sync.bfly.b32 %0, %1, 1, 0x1f, 0xffffffff;" : "=f"(y) : "f"(x)); o[0] = x + y;',
        "",
    ),
    (
        "PTX: cp.async",
        "",
        "__local float t[128]; __asm__ volatile "
        '("{ .reg .u64 a; .reg .u32 b; cvta.to.global.u64 a, %0; cvt.u32.u64 b, %1; '
        'cp.async.ca.shared.global [b], [a], 16; cp.async.wait_all; }" :: "l"(o), "l"(t)); '
        "barrier(CLK_LOCAL_MEM_FENCE); o[0] = t[get_local_id(0)];",
        "",
    ),
    ("sub-groups", "", "o[0] = sub_group_reduce_add(o[get_global_id(0)]);", "-cl-std=CL3.0"),
    ("AMD: MFMA", "", "typedef float v __attribute__((ext_vector_type(4))); v c = 0; c = "
     "__builtin_amdgcn_mfma_f32_16x16x4f32(o[0], o[1], c, 0, 0, 0); o[0] = c.x;", ""),
    ("AMD: sdot4", "", "o[0] = __builtin_amdgcn_sdot4(n, n, n, false);", ""),
    ("Intel: matrix_mad", "", "short8 a = 0; int8 b = 0; float8 c = 0; "
     "o[0] = intel_sub_group_f16_f16_matrix_mad_k16(a, b, c).s0;", "-cl-std=CL3.0"),
    ("integer dot product", "", "o[0] = dot_acc_sat_4x8packed_ss_int(n, n, n);", "-cl-std=CL3.0"),
    ("NVIDIA: unroll", "#pragma OPENCL EXTENSION cl_nv_pragma_unroll : enable\n",
     "float s = 0; _Pragma(\"unroll 8\") for (int i = 0; i < n; ++i) s += o[i]; o[0] = s;", ""),
    ("NVIDIA: verbose", "", "o[get_global_id(0)] = n;", "-cl-std=CL1.2 -cl-nv-verbose"),
    ("NVIDIA: maxrregcount", "", "o[0] = n;", "-cl-std=CL1.2 -cl-nv-maxrregcount=64"),
)  # fmt: skip
_TOUCH = "__kernel void k(__global float* o) { o[get_global_id(0)] += 1; }"


def facts(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """What driver, machine and clinfer say of the device."""
    for name in _ASKED:
        yield {"what": name, **_fact(probe.device, name)}
    for command in _TOOLS:
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            yield {"what": " ".join(command), "value": done.stdout.strip()[:3000]}
    from clinfer.device.discover import open_device

    device = open_device("GPU")
    yield {"what": "clinfer", "value": str(device.info._replace(extensions=frozenset()))}
    yield {"what": "target", "value": str(device.target)}


def language(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """What the compiler takes of half, inline PTX, matrix builtins; the format of its binaries."""
    for name, head, body, options in _LANGUAGE:
        try:
            text = head + _KERNEL.format(body=body)
            program, seconds = probe.build(text, options or STANDARD)
        except cl.Error as error:
            yield {"what": name, "refused": _line(error)}
            continue
        binary = program.binaries[0]
        log = program.get_build_info(probe.device, cl.program_build_info.LOG).strip()
        row = {"what": name, "ms": 1e3 * seconds, "bytes": len(binary), "log": log[:300]}
        yield row | {"begins": binary[:24].decode("latin-1")}


def units(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """Matrix instructions: whether fragments lie as `gpu_units` says; the emulation everywhere."""
    for unit in gpu_units.UNITS:
        for emulated in (False, True):
            row: Row = {"what": unit.name, "emulated": emulated}
            if not emulated and "nvidia" not in probe.device.vendor.lower():
                yield row | {"refused": f"PTX is for NVIDIA, not {probe.device.vendor}"}
                continue
            a, b = gpu_units.matrices(unit)
            left, right = gpu_units.registers(unit, a, b)
            kind = np.float32 if unit.result == "f32" else np.int32
            results = probe.buffer(np.zeros((32, 4), kind))
            lanes = probe.buffer(np.zeros(32, np.uint32))
            try:
                program, _ = probe.build(gpu_units.source(unit, emulated))
                inputs = probe.buffer(left), probe.buffer(right)
                kernel = probe.kernel(program, *inputs, results, lanes)
                cl.enqueue_nd_range_kernel(probe.queue, kernel, (32,), (32,))
                found = gpu_units.product(probe.read(results, np.empty((32, 4), kind)))
            except cl.Error as error:
                yield row | {"refused": _line(error)}
                continue
            order = probe.read(lanes, np.empty(32, np.uint32))
            row["right"] = bool(np.array_equal(found, a @ b))
            yield row | {"lanes in order": order.tolist() == list(range(32))}


def binaries(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """What a build costs from text, from the binary, and from machine code made by ptxas."""
    text = gpu_units.source(gpu_units.UNITS[0], emulated=True)
    program, seconds = probe.build(text)
    binary = program.binaries[0]
    yield {"what": "from text", "ms": 1e3 * seconds, "bytes": len(binary)}
    yield {"what": "from its binary", "ms": 1e3 * probe.load(binary)[1]}
    yield {"what": "its cache", "value": os.environ.get("CUDA_CACHE_PATH", "")}
    if b".version" not in binary[:4096]:
        yield {"what": "machine code", "refused": "the binary is no PTX"}
        return
    (out / "unit.ptx").write_bytes(binary)
    assembler = shutil.which("ptxas")
    if assembler is None:
        yield {"what": "machine code", "refused": "ptxas is not installed"}
        return
    device = probe.device
    arch = f"sm_{device.compute_capability_major_nv}{device.compute_capability_minor_nv}"
    with TemporaryDirectory() as folder:
        ptx, cubin = Path(folder) / "k.ptx", Path(folder) / "k.cubin"
        ptx.write_bytes(binary.rstrip(b"\0"))
        command = [assembler, "-arch", arch, "-o", str(cubin), str(ptx)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield {"what": "machine code", "refused": done.stderr[-300:]}
            return
        content = cubin.read_bytes()
    try:
        loaded, seconds = probe.load(content)
        row: Row = {"what": "machine code", "ms": 1e3 * seconds, "bytes": len(content)}
        row["kernels"] = loaded.kernel_names
        row["given back equal"] = loaded.binaries[0] == content
        yield row
    except cl.Error as error:
        yield {"what": "machine code", "refused": _line(error)}


def launches(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """What launches cost host and device, and whether they begin before they are waited for."""
    program, _ = probe.build(_TOUCH)
    kernel = probe.kernel(program, probe.buffer(1 << 20))
    enqueue = partial(cl.enqueue_nd_range_kernel, probe.queue, kernel, (256,), (256,))
    for count in (1, 10, 100, 1000):
        whole, queued = [], []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(count):
                enqueue()
            queued.append(time.perf_counter() - start)
            probe.queue.finish()
            whole.append(time.perf_counter() - start)
        each = {"us each": 1e6 * min(whole) / count, "us to enqueue": 1e6 * min(queued) / count}
        yield {"what": f"{count} launches", **each}
    queue = probe.timed_queue
    events = [cl.enqueue_nd_range_kernel(queue, kernel, (256,), (256,)) for _ in range(300)]
    queue.finish()
    gaps = [(b.profile.start - a.profile.end) / 1e3 for a, b in pairwise(events)]
    runs = [(e.profile.end - e.profile.start) / 1e3 for e in events]
    medians = {"us on the device": statistics.median(runs), "us between": statistics.median(gaps)}
    yield {"what": "launches by events", **medians}
    turns = 1_000 if probe.small else 5_000_000
    text = (
        "__kernel void k(__global float* o, int n) { float x = o[get_global_id(0)]; "
        "for (int i = 0; i < n; ++i) x = x * 1.0001f + 0.5f; o[get_global_id(0)] = x; }"
    )
    long = probe.kernel(probe.build(text)[0], probe.buffer(1 << 20), turns)
    run = partial(cl.enqueue_nd_range_kernel, probe.queue, long, (256,), (256,))
    whole_run = fastest(lambda: (run(), probe.queue.finish()), 2)
    for flushed in (False, True):
        run()
        if flushed:
            probe.queue.flush()
        time.sleep(1.5 * whole_run)
        left = fastest(probe.queue.finish, 1)
        row = {"what": "begins unasked", "flushed": flushed, "ms": 1e3 * whole_run}
        yield row | {"ms still to wait": 1e3 * left}


def copies(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """Host to device and back: pageable memory, and pinned memory (ALLOC_HOST_PTR, mapped once)."""
    flags = cl.mem_flags
    for size in (1 << 16, 1 << 20) if probe.small else (1 << 16, 1 << 20, 1 << 24, 1 << 26):
        there = probe.buffer(size)
        pinned = cl.Buffer(probe.context, flags.READ_WRITE | flags.ALLOC_HOST_PTR, size)
        access = cl.map_flags.READ | cl.map_flags.WRITE
        mapped, _ = cl.enqueue_map_buffer(probe.queue, pinned, access, 0, (size,), np.uint8)
        for name, array in (("pageable", np.ones(size, np.uint8)), ("pinned", mapped)):
            for way, ends in (("to the device", (there, array)), ("back", (array, there))):
                seconds = fastest(partial(cl.enqueue_copy, probe.queue, *ends))
                row = {"what": f"{name}, {way}", "bytes": size, "us": 1e6 * seconds}
                yield row | {"GB/s": size / seconds / 1e9}
        mapped.base.release(probe.queue)
        content = np.ones(size, np.uint8)
        made = fastest(lambda content=content: probe.buffer(content))
        yield {"what": "a buffer with a copy", "bytes": size, "us": 1e6 * made}


def peaks(probe: Probe, out: Path, models: list[Path]) -> Iterator[Row]:
    """Multiply-adds and copies, as many as the device does."""
    chain = "a = a * b + c; b = b * c + d; c = c * d + a; d = d * a + b; " * 8
    text = (
        "__kernel __attribute__((reqd_work_group_size(256, 1, 1))) void k(__global float4* o, "
        "int n) { float4 a = get_global_id(0), b = a + 1, c = a + 2, d = a + 3; "
        f"for (int i = 0; i < n; ++i) {{ {chain} }} o[get_global_id(0)] = a + b + c + d; }}"
    )
    groups = 8 * probe.device.max_compute_units
    turns = 2 if probe.small else 512
    kernel = probe.kernel(probe.build(text)[0], probe.buffer(groups * 256 * 16), turns)
    seconds = probe.seconds(kernel, (groups * 256,), (256,))
    yield {"what": "multiply-adds", "TFLOP/s": groups * 256 * turns * 32 * 4 * 2 / seconds / 1e12}
    count = 1 << 16 if probe.small else 1 << 28
    source, target = probe.buffer(4 * count), probe.buffer(4 * count)
    for kind, width in (("float", 1), ("float4", 4)):
        text = (
            f"__kernel void k(__global const {kind}* a, __global {kind}* b, int n) {{ "
            "for (int i = get_global_id(0); i < n; i += get_global_size(0)) b[i] = a[i]; }"
        )
        kernel = probe.kernel(probe.build(text)[0], source, target, count // width)
        items = 256 * 32 * probe.device.max_compute_units
        seconds = probe.seconds(kernel, (items,), (256,))
        yield {"what": f"copy by {kind}", "GB/s": 8 * count / seconds / 1e9}


def _fact(device: cl.Device, name: str) -> Row:
    try:
        return {"value": str(getattr(device, name))}
    except (cl.Error, AttributeError) as error:
        return {"refused": str(error)[:120]}


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error" in line.lower()]
    return (lines or [str(error)])[0].strip()[:300]
