"""What drivers do differently, each with its reason. The first row that fits is used."""

from __future__ import annotations

import re
from typing import NamedTuple


class Quirks(NamedTuple):
    """How to treat a driver.

    dialect: the compiler family, as `Target.dialect` names it.
    builds: how programs build in parallel: "threads" of this process, "processes" where the
        compiler holds a lock or may bring the process down, "serial" where nothing is known.
    finishes_at: when a program's binary is complete: at its "build", or with its first "kernel".
    binary_layout: the version of PoCL's binaries, where `clinfer.device.pocl_binary` knows it: a
        binary can be checked, and made with one code generation. 0: it does not.
    short_header: built-in functions may be declared by need (`clinfer.device.pocl_header`).
    compares_binary: the driver rebuilds a binary of another device without a word; the bytes it
        gives back tell.
    shares_host_memory: buffers made with USE_HOST_PTR are used in place.
    plays: a binary holds a shared object whose functions can be called on host memory, so a plan
        can be run by the player (`clinfer_kernels.player`) instead of launch by launch.
    """

    dialect: str
    builds: str = "threads"
    finishes_at: str = "build"
    binary_layout: int = 0
    short_header: bool = False
    compares_binary: bool = False
    shares_host_memory: bool = False
    plays: bool = False


_POCL = Quirks("pocl", "processes", shares_host_memory=True)
_POCL_3_0 = _POCL._replace(binary_layout=8, short_header=True, plays=True)
_POCL_6 = _POCL._replace(binary_layout=11, plays=True)
_POCL_REASON = (
    "one lock in the whole process while LLVM works, and an internal error of it ends the "
    "process; a kernel is compiled per work-group size at its first launch, and again for any "
    "size when the binary is asked for; reads a 1 MB header twice per program; fma() is a call "
    "of a library where its target has no FMA; sleeps and wakes its threads for each launch"
)

# (platform's name, platform's version: regular expressions searched without regard to case,
#  quirks, the reason)
_TABLE = (
    ("portable computing language", r"pocl (1\.8|3\.0)\b", _POCL_3_0, _POCL_REASON),
    (
        "portable computing language",
        r"pocl 3\.1\b",
        _POCL_3_0._replace(binary_layout=9),
        _POCL_REASON,
    ),
    (
        "portable computing language",
        r"pocl (6\.0|7\.[01])\b",
        _POCL_6,
        f"{_POCL_REASON}; since 4.0 clang declares the built-in functions itself",
    ),
    (
        "portable computing language",
        "",
        _POCL,
        "a version whose binaries are not known: no player, launches go through a queue",
    ),
    (
        r"intel\(r\) opencl( hd)? graphics",
        "",
        Quirks("intel", "processes", compares_binary=True),
        "NEO compiles in parallel threads, but then not always to the same code; given a binary of "
        "another device with IR inside, it rebuilds it from that",
    ),
    (
        r"intel\(r\) opencl",
        "",
        Quirks("intel_cpu", "processes", shares_host_memory=True),
        "the CPU runtime: one lock while it compiles; buffers are host memory",
    ),
    (
        "nvidia cuda",
        "",
        Quirks("nvidia", "processes"),
        "reported to compile one program at a time in a process (not measured here); the program's "
        "binary is PTX: loading it translates to machine code, which NVIDIA's own cache keeps, for "
        "all processes; fma is as fast as a multiplication",
    ),
    (
        "amd accelerated parallel processing",
        "",
        Quirks("amd", "processes"),
        "ROCm refuses binaries of another release; its compiler is reported to hold a lock in a "
        "process (not measured here)",
    ),
    (
        "arm platform",
        "",
        Quirks("mali", finishes_at="kernel"),
        "Mali finishes compiling at clCreateKernel; a binary taken before is not complete",
    ),
    (
        "qualcomm",
        "",
        Quirks("adreno", "serial", finishes_at="kernel"),
        "not known to build in parallel",
    ),
    (
        "oclgrind",
        "",
        Quirks("oclgrind", "serial"),
        "an interpreter, not safe for threads; a device to find errors with",
    ),
    ("rusticl", "", Quirks("mesa"), "compiles in parallel threads"),
    ("clover", "", Quirks("mesa", "serial"), "Mesa's older implementation"),
)


_UNKNOWN = Quirks("generic", "serial", finishes_at="kernel")


def quirks_of(platform: str, version: str = "") -> Quirks:
    """The quirks of a platform by name and version; cautious ones for an unknown driver."""
    row = _row(platform, version)
    return row[2] if row is not None else _UNKNOWN


def reason_of(platform: str, version: str = "") -> str:
    """Why a platform is treated as it is."""
    row = _row(platform, version)
    return row[3] if row is not None else "an unknown driver: nothing is built in parallel"


def _row(platform: str, version: str) -> tuple[str, str, Quirks, str] | None:
    for row in _TABLE:
        fits_name = re.search(row[0], platform, re.IGNORECASE)
        if fits_name and re.search(row[1], version, re.IGNORECASE):
            return row
    return None
