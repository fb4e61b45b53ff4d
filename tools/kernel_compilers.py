"""Compilers for GPUs that need no device: clang for AMD, clang with ptxas for NVIDIA.

Debian: clang-15 lld-15 rocm-device-libs (AMD); clang-15 libclc-15 (NVIDIA), and ptxas from NVIDIA's
CUDA toolkit or the wheel nvidia-cuda-nvcc. NVIDIA's driver has an OpenCL compiler of its own: what
clang and libclc make is near it, not equal. `tools/unpack_compilers.py` unpacks all of them into a
folder that GPU_ROOT and GPU_VENV name then; what is there goes before what is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

from clinfer.device.sources import STANDARD
from clinfer_kernels.contraction.matrix_units import available
from clinfer_kernels.spec import Target
from kernel_units import Unit
from kernel_usage import Limits, Result, Usage, allocated, checked, limits_of

SECONDS = 120
_VERSIONS = ("", *(f"-{n}" for n in range(22, 14, -1)))
_DEVICE_LIBS = ("/usr/lib/x86_64-linux-gnu/amdgcn/bitcode", "/usr/lib/*/amdgcn/bitcode")
_LIBCLC = "nvptx64--nvidiacl.bc"
_LIBCLC_LLVM = 15
_PTX_VERSION = "+ptx75"
_SM80_WARPS = 64
_SM80_GROUPS = 32
_SM80_LOCAL = 164 * 1024


@dataclass(frozen=True)
class Offline:
    """A GPU with an offline compiler. `compile(unit, folder)` may raise `RefusedError`."""

    name: str
    title: str
    target: Target
    limits: Limits
    missing: Callable[[], str]
    compile: Callable[[Unit, Path], Usage]


class RefusedError(Exception):
    """A compiler refused a kernel; the message is one line."""


# -- what compilers print --------------------------------------------------------------------------

_REMARK = re.compile(r"remark: +(.+?): (\S+) \[-Rpass-analysis=kernel-resource-usage\]")
_ERROR = re.compile(r"^.*?\b(?:fatal )?error\s*: .*$|^ptxas fatal.*$|.*INVALID opcode.*", re.M)
_EXTERNAL = re.compile(r"^\.extern \.func\s+(?:\([^)]*\)\s*)?([\w$]+)", re.M)


def first_error(output: str) -> str:
    """The line of a compiler's or linker's output that says what is wrong; '' for none."""
    found = _ERROR.search(output)
    return " ".join(found.group().split())[:300] if found else ""


def amd_usage(remarks: str, entry: str) -> Usage:
    """From clang's remarks on kernel resource usage. Raises `RefusedError` where there are none."""
    values: dict[str, str] = {}
    for key, value in _REMARK.findall(remarks):
        if key == "Function Name":
            if values.get(key) == entry:
                break
            values = {}
        values[key] = value
    if values.get("Function Name") != entry:
        raise RefusedError(f"clang says nothing of the registers of '{entry}'")
    return Usage(
        registers=int(values["VGPRs"]) + int(values.get("AGPRs", 0)),
        spilled=4 * int(values["VGPRs Spill"]),
        local=int(values["LDS Size [bytes/block]"]),
        scratch=int(values["ScratchSize [bytes/lane]"]),
        occupancy=int(values["Occupancy [waves/SIMD]"]),
    )


def ptxas_usage(output: str, entry: str) -> Usage:
    """From what `ptxas -v` prints. Raises `RefusedError` where it says nothing of the kernel."""
    head = re.search(rf"Function properties for {re.escape(entry)}\n", output)
    if head is None:
        raise RefusedError(f"ptxas says nothing of the registers of '{entry}'")
    text = output[head.end() :]
    stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", text)
    registers = re.search(r"Used (\d+) registers", text)
    if stack is None or registers is None:
        raise RefusedError(f"ptxas says nothing of the registers of '{entry}'")
    line = text[registers.start() :].partition("\n")[0]
    local = re.search(r"(\d+) bytes smem", line)
    return Usage(
        registers=int(registers[1]),
        spilled=int(stack[2]),
        local=int(local[1]) if local else 0,
        scratch=int(stack[1]),
    )


def external_functions(ptx: str) -> list[str]:
    """Functions that a PTX text declares and does not define."""
    defined = set(re.findall(r"^(?:\.visible )?\.func\s+(?:\([^)]*\)\s*)?([\w$]+)", ptx, re.M))
    return [name for name in _EXTERNAL.findall(ptx) if name not in defined]


def undefined_symbols(listing: str) -> list[str]:
    """Names in what `nm -D --undefined-only` prints of a linked object."""
    return re.findall(r"^\s+[Uwv] (\S+)", listing, re.M)


def warps_percent(registers: int, local: int, items: int, limits: Limits) -> int:
    """Occupancy of sm_80, whose multiprocessor has 64 warps; a group takes 1 KiB of its own."""
    warps = -(-items // limits.wave)
    by_registers = limits.file // (allocated(registers, limits) * limits.wave * warps)
    by_local = _SM80_LOCAL // (local + 1024)
    groups = min(by_registers, by_local, _SM80_WARPS // warps, _SM80_GROUPS)
    return 100 * groups * warps // _SM80_WARPS


# -- compilers -------------------------------------------------------------------------------------


def unpacked() -> Path | None:
    """Where compilers lie that are not installed (GPU_ROOT); None for nowhere."""
    folder = os.environ.get("GPU_ROOT")
    return Path(folder) if folder else None


@cache
def tool(name: str) -> str | None:
    """The path of an LLVM tool, of whatever version."""
    folder = unpacked()
    bins = [] if folder is None else [folder / "usr/bin", *folder.glob("usr/lib/llvm-*/bin")]
    path = os.pathsep.join([*map(str, bins), os.environ.get("PATH", "")])
    paths = (shutil.which(f"{name}{version}", path=path) for version in _VERSIONS)
    return next((path for path in paths if path), None)


@cache
def surroundings() -> dict[str, str]:
    """Variables for a compiler: where the libraries of unpacked ones are."""
    folder = unpacked()
    if folder is None:
        return dict(os.environ)
    libraries = [folder / "usr/lib/x86_64-linux-gnu", *folder.glob("usr/lib/llvm-*/lib")]
    before = os.environ.get("LD_LIBRARY_PATH")
    paths = [*map(str, libraries), *([before] if before else [])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths)}


@cache
def _first(patterns: tuple[str, ...]) -> str | None:
    folder = unpacked()
    roots = [*([folder] if folder is not None else []), Path("/")]
    found = (
        path
        for root in roots
        for pattern in patterns
        for path in sorted(root.glob(pattern.lstrip("/")))
    )
    return next((str(path) for path in found), None)


@cache
def nvidia_tool(name: str) -> str | None:
    """The path of ptxas or nvdisasm: on PATH, of a CUDA toolkit, or of NVIDIA's wheels."""
    import site

    venv = os.environ.get("GPU_VENV")
    folders = [*(str(p) for p in Path(venv or "/none").glob("lib/*/site-packages"))]
    folders += site.getsitepackages()
    toolkits = (f"/usr/local/cuda/bin/{name}", f"/usr/local/cuda-*/bin/{name}")
    wheels = tuple(
        found for folder in folders for found in Path(folder).glob(f"nvidia/**/bin/{name}")
    )
    return shutil.which(name) or _first(toolkits) or (str(wheels[0]) if wheels else None)


def ptxas() -> str | None:
    """The path of ptxas."""
    return nvidia_tool("ptxas")


@cache
def _libclc() -> str | None:
    return _first((f"/usr/lib/clc/{_LIBCLC}", f"/usr/share/clc/{_LIBCLC}"))


def amd_missing() -> str:
    if tool("clang") is None:
        return "clang not found"
    if tool("ld.lld") is None:
        return "ld.lld not found (lld)"
    return "" if _first(_DEVICE_LIBS) else "rocm-device-libs not found"


def nvidia_missing() -> str:
    if tool("clang") is None:
        return "clang not found"
    if _libclc() is None:
        return f"{_LIBCLC} not found (libclc)"
    return "" if ptxas() else "ptxas not found"


def versions(device: Offline) -> str:
    """The compilers' versions."""
    return ", ".join(versions_of(device.limits is _SM80))


def clang(nvidia: bool) -> str | None:
    """The path of clang: the newest, but for NVIDIA the one that libclc's bitcode is of."""
    wanted = [f"-{_LIBCLC_LLVM}", ""] if nvidia else [*_VERSIONS[1:], ""]
    return next(filter(None, (tool(f"clang{version}") for version in wanted)), None)


def versions_of(nvidia: bool) -> list[str]:
    """Names and versions of clang and, for NVIDIA, of ptxas."""
    version = re.search(r"version (\d[\d.]*)", run_compiler([str(clang(nvidia)), "--version"]))
    found = [f"clang {version[1] if version else ''}"]
    if nvidia:
        release = re.search(r"release (\S+?),", run_compiler([str(ptxas()), "--version"]))
        found.append(f"ptxas {release[1] if release else ''}")
    return found


def run_compiler(command: Sequence[str]) -> str:
    """What a command prints. Raises `RefusedError` for an exit status, a message or a time-out."""
    try:
        done = subprocess.run(
            command,
            env=surroundings(),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"{Path(command[0]).name} takes more than {SECONDS} s") from error
    output = done.stdout + done.stderr
    fault = first_error(output)
    if done.returncode or fault:
        raise RefusedError(fault or f"{Path(command[0]).name} ended with status {done.returncode}")
    return output


def _front(unit: Unit, folder: Path, nvidia: bool) -> list[str]:
    text = folder / f"{unit.name}.cl"
    text.write_text(unit.source)
    front = clang(nvidia)
    assert front is not None
    return [front, "-x", "cl", STANDARD, *unit.options.split(), "-O3", "-w", str(text)]


def _amd(processor: str) -> Callable[[Unit, Path], Usage]:
    def compiled(unit: Unit, folder: Path) -> Usage:
        binary = folder / f"{unit.name}.{processor}"
        output = run_compiler(
            [
                *_front(unit, folder, nvidia=False),
                *("-target", "amdgcn-amd-amdhsa", f"-mcpu={processor}"),
                f"--rocm-device-lib-path={device_libraries()}",
                "-Rpass-analysis=kernel-resource-usage",
                *("-o", str(binary)),
            ]
        )
        nm = tool("llvm-nm")
        missing = (
            undefined_symbols(run_compiler([nm, "-D", "--undefined-only", str(binary)]))
            if nm
            else []
        )
        if missing:
            raise RefusedError(f"unresolved: {', '.join(missing)}")
        return replace(amd_usage(output, unit.entry), binary=binary.stat().st_size)

    return compiled


def nvidia_flags(processor: str) -> list[str]:
    """What clang's front end is told for PTX of that processor, with libclc."""
    forwarded = ("-target-cpu", processor, "-target-feature", _PTX_VERSION)
    linked = ("-mlink-builtin-bitcode", str(_libclc()))
    return [x for argument in (*forwarded, *linked) for x in ("-Xclang", argument)]


def device_libraries() -> str | None:
    """The folder of rocm-device-libs."""
    return _first(_DEVICE_LIBS)


def _nvidia(processor: str, limits: Limits) -> Callable[[Unit, Path], Usage]:
    def compiled(unit: Unit, folder: Path) -> Usage:
        ptx = folder / f"{unit.name}.ptx"
        binary = folder / f"{unit.name}.cubin"
        target = ("-target", "nvptx64-nvidia-nvcl", "-S", "-o", str(ptx))
        run_compiler([*_front(unit, folder, nvidia=True), *target, *nvidia_flags(processor)])
        missing = external_functions(ptx.read_text())
        if missing:
            raise RefusedError(f"unresolved: {', '.join(missing)}")
        assembler = str(ptxas())
        usage = ptxas_usage(
            run_compiler([assembler, "-v", "-arch", processor, "-o", str(binary), str(ptx)]),
            unit.entry,
        )
        percent = warps_percent(usage.registers or 0, usage.local, prod(unit.group), limits)
        return replace(usage, binary=binary.stat().st_size, occupancy=percent)

    return compiled


_GFX = Target(
    cls="gpu",
    vendor="amd",
    vector_width=4,
    max_work_group=256,
    local_mem=65536,
    fp16=True,
    dialect="amd",
    extensions=frozenset({"cl_khr_fp16"}),
)
_SM = Target(
    cls="gpu",
    vendor="nvidia",
    vector_width=4,
    max_work_group=1024,
    local_mem=49152,
    dialect="nvidia",
)


def _of(target: Target, capability: tuple[int, ...], architecture: str) -> Target:
    """As the driver describes that processor, with its matrix units."""
    known = available(capability, architecture, ())
    return target._replace(architecture=architecture, matrix_units=known)


# A group's waves are dealt out to the 4 SIMDs of a compute unit: gfx90a has 512 registers for each
# of the 64 lanes of a SIMD, gfx1030 1,024 for each of 32.
_GFX90A = limits_of(_GFX, file=4 * 64 * 512, wave=4 * 64, step=8)
_GFX1030 = limits_of(_GFX, file=4 * 32 * 1024, wave=4 * 32, step=8)
_SM80 = limits_of(_SM, file=65536, wave=32, step=8)

DEVICES = (
    Offline(
        "gfx90a",
        "AMD MI200 (gfx90a)",
        _of(_GFX, (0, 0), "gfx90a"),
        _GFX90A,
        amd_missing,
        _amd("gfx90a"),
    ),
    Offline(
        "gfx1030",
        "AMD RX 6000 (gfx1030)",
        _of(_GFX, (0, 0), "gfx1030"),
        _GFX1030,
        amd_missing,
        _amd("gfx1030"),
    ),
    Offline(
        "sm_80",
        "NVIDIA A100 (sm_80)",
        _of(_SM, (8, 0), "NVIDIA A100"),
        _SM80,
        nvidia_missing,
        _nvidia("sm_80", _SM80),
    ),
)


def compile_offline(device: Offline, units: Sequence[Unit], jobs: int) -> list[Result]:
    """Compiles every unit, `jobs` at a time."""

    def one(unit: Unit) -> Result:
        try:
            result = Result(device.name, unit, device.compile(unit, Path(folder)))
        except RefusedError as refusal:
            result = Result(device.name, unit, None, (str(refusal),))
        return checked(result, device.limits)

    with TemporaryDirectory(prefix="clinfer-check-") as folder, ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, units))
