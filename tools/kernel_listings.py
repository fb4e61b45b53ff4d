"""Machine code of a kernel for a GPU that is not there, as a listing, with what it takes.

    AMD     clang -S                            NVIDIA  clang, libclc, ptxas, nvdisasm
    Intel   ocloc, of the driver, and its disassembler

`Code` is cached in a folder (GPU_WORK, else one in the user's cache), by text, options, GPU and
compilers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

import kernel_compilers as offline
from clinfer.device.sources import STANDARD
from clinfer_kernels.contraction.units_intel import DPAS

_PTX = ("-target", "nvptx64-nvidia-nvcl", "-S")
_LOCAL_SURFACE, _EXECUTION_ENVIRONMENT = 15, 23  # patch tokens of Intel's binaries
_PTX_CPU = "sm_80"  # what clang 15 knows; ptxas makes machine code of newer ones from it


@dataclass(frozen=True)
class Code:
    """A listing, and what the kernel takes: registers of a work-item (None where the compiler does
    not say), bytes of local memory of a group, bytes spilled of a work-item or hardware thread."""

    listing: str
    registers: int | None
    local: int
    spilled: int


def missing(vendor: str) -> str:
    """What is not installed of a vendor's compilers; '' for nothing."""
    return _MISSING[vendor]()


def compiled(source: str, entry: str, options: str, arch: str, vendor: str) -> Code:
    """The machine code. Raises `kernel_compilers.RefusedError`."""
    text = json.dumps([source, options, arch, compilers(vendor), 2])
    file = _folder() / f"{entry[:60]}-{sha256(text.encode()).hexdigest()[:16]}.json"
    if file.exists():
        return Code(**json.loads(file.read_text()))
    with TemporaryDirectory(prefix="clinfer-listing-") as folder:
        place = Path(folder) / "k.cl"
        place.write_text(source)
        code = _COMPILE[vendor](place, entry, options.split(), arch)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(code)))
    partial.replace(file)
    return code


@cache
def compilers(vendor: str) -> str:
    """Names and versions."""
    if vendor == "intel":
        package = re.search(r"Version: (\S+)", _ocloc_version())
        return f"ocloc {package[1] if package else ''}".strip()
    return ", ".join(offline.versions_of(vendor == "nvidia"))


@cache
def _folder() -> Path:
    named = os.environ.get("GPU_WORK")
    folder = Path(named) if named else platformdirs.user_cache_path("clinfer") / "listings"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- AMD -------------------------------------------------------------------------------------------


def _amd(place: Path, entry: str, options: list[str], arch: str) -> Code:
    listing = place.with_suffix(".s")
    if arch == "gfx942" and compilers("amd").startswith("clang 15"):
        arch = "gfx940"  # as it was called
    command = [
        *_front(place, options, nvidia=False),
        "-target",
        "amdgcn-amd-amdhsa",
        f"-mcpu={arch}",
    ]
    command += [f"--rocm-device-lib-path={offline.device_libraries()}", "-S", "-o", str(listing)]
    remarks = offline.run_compiler([*command, "-Rpass-analysis=kernel-resource-usage"])
    usage = offline.amd_usage(remarks, entry)
    text = _function(listing.read_text(), entry)
    return Code(text, usage.registers, usage.local, usage.spilled)


def _function(listing: str, entry: str) -> str:
    """The kernel itself: Clang 21 keeps its body as a function besides."""
    begin = listing.find(f"\n{entry}:")
    return listing[begin + 1 : listing.find(".Lfunc_end", begin)] if begin >= 0 else listing


# -- NVIDIA ----------------------------------------------------------------------------------------


def _nvidia(place: Path, entry: str, options: list[str], arch: str) -> Code:
    ptx, cubin = place.with_suffix(".ptx"), place.with_suffix(".cubin")
    forwarded = offline.nvidia_flags(_PTX_CPU)
    offline.run_compiler([*_front(place, options, nvidia=True), *_PTX, "-o", str(ptx), *forwarded])
    assembler, disassembler = offline.ptxas(), offline.nvidia_tool("nvdisasm")
    assert assembler is not None
    assert disassembler is not None
    told = offline.run_compiler([assembler, "-v", "-arch", arch, "-o", str(cubin), str(ptx)])
    usage = offline.ptxas_usage(told, entry)
    listing = offline.run_compiler([disassembler, "-c", str(cubin)])
    return Code(listing, usage.registers, usage.local, usage.spilled)


# -- Intel -----------------------------------------------------------------------------------------


@cache
def _ocloc() -> str | None:
    return offline.tool("ocloc")


@cache
def _ocloc_version() -> str:
    """The package's own words: ocloc prints no version of itself."""
    root = offline.unpacked()
    files = [] if root is None else sorted(root.parent.glob("*/intel-opencl-icd_*.deb"))
    if files:
        return f"Version: {files[-1].name.split('_')[1].replace('%3a', ':')}"
    if shutil.which("dpkg-query") is None:
        return ""
    try:
        return offline.run_compiler(["dpkg-query", "-s", "intel-opencl-icd"])
    except offline.RefusedError:
        return ""


def _intel(place: Path, entry: str, options: list[str], arch: str) -> Code:
    ocloc = _ocloc()
    assert ocloc is not None
    made, dump = place.parent / "made", place.parent / "dump"
    dump.mkdir()
    flags = " ".join([STANDARD, *options])
    command = [ocloc, "compile", "-file", str(place), "-device", arch, "-out_dir", str(made)]
    command += ["-output", "k", "-options", flags]
    if DPAS in place.read_text():  # a driver says that the device has it; ocloc 22.43 does not
        enabled = ",".join(f"+{name}" for name in (DPAS, "cl_intel_subgroups", "cl_khr_fp16"))
        command += ["-internal_options", f"-cl-ext=-all,{enabled}"]
    told = offline.run_compiler(command)
    binary = next(made.glob("*.bin"), None)
    if binary is None:
        raise offline.RefusedError(offline.first_error(told) or "ocloc has made nothing")
    command = [ocloc, "disasm", "-file", str(binary), "-device", arch, "-dump", str(dump)]
    offline.run_compiler(command)
    files = sorted(dump.glob("*.asm"))
    if not files:
        raise offline.RefusedError("ocloc gives no listing")
    listing = "\n".join(file.read_text(errors="replace") for file in files)
    local, spilled, lanes = _intel_sizes(dump, entry)
    # A hardware thread has 4 KiB of registers, or 8 where it is told so, for all of its lanes.
    words = 2048 if "-cl-intel-256-GRF-per-thread" in options else 1024
    return Code(listing, words // lanes if lanes else None, local, spilled)


def _intel_sizes(dump: Path, entry: str) -> tuple[int, int, int]:
    """(local memory, spilled, lanes) from the description of the kernel (zeinfo), or what the patch
    tokens tell of it; 0 for what they do not."""
    texts = [file.read_text(errors="replace") for file in dump.iterdir() if file.is_file()]
    found = next((text for text in texts if f"name:            {entry}" in text), "")
    patterns = (r"slm_size: +(\d+)", r"spill_(?:mem_)?size: +(\d+)", r"simd_size: +(\d+)")
    if found:
        sizes = [re.search(pattern, found) for pattern in patterns]
        local, spilled, lanes = (int(size[1]) if size else 0 for size in sizes)
        return local, spilled, lanes
    tokens = "\n".join(texts)
    return _patched(tokens, _LOCAL_SURFACE, 1), 0, _patched(tokens, _EXECUTION_ENVIRONMENT, 3)


def _patched(tokens: str, number: int, word: int) -> int:
    """A 32-bit word of a patch token, which the disassembler prints as bytes; 0 for none."""
    found = re.search(rf"Token {number}\n\s*\d+ Size \d+\n\s*Hex ([0-9a-f ]+)", tokens)
    given = bytes(int(byte, 16) for byte in found[1].split()) if found else b""
    return int.from_bytes(given[4 * word : 4 * word + 4], "little")


def _intel_missing() -> str:
    return "" if _ocloc() else "ocloc not found (intel-opencl-icd)"


def _nvidia_missing() -> str:
    first = offline.nvidia_missing()
    return first or ("" if offline.nvidia_tool("nvdisasm") else "nvdisasm not found")


def _front(place: Path, options: list[str], nvidia: bool) -> list[str]:
    clang = offline.clang(nvidia)
    assert clang is not None
    return [clang, "-x", "cl", STANDARD, *options, "-O3", "-w", str(place)]


_MISSING = {"amd": offline.amd_missing, "nvidia": _nvidia_missing, "intel": _intel_missing}
_COMPILE = {"amd": _amd, "nvidia": _nvidia, "intel": _intel}
