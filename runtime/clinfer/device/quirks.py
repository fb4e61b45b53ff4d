"""What drivers do differently, each with its reason. The first row whose pattern fits is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """How to treat a driver.

    dialect: the compiler family, as `Target.dialect` names it.
    threads_build: whether builds in several threads of one process run in parallel.
    shares_host_memory: buffers made with USE_HOST_PTR are used in place.
    """

    dialect: str
    threads_build: bool = True
    shares_host_memory: bool = False


# (part of the platform's name in lower case, quirks, the reason)
_TABLE = (
    (
        "portable computing language",
        Quirks("pocl", threads_build=False, shares_host_memory=True),
        "PoCL holds a lock per context while LLVM works; buffers of a CPU device are host memory",
    ),
    (
        "intel(r) opencl graphics",
        Quirks("intel"),
        "compiles in parallel; discrete GPUs copy",
    ),
    (
        "intel(r) opencl hd graphics",
        Quirks("intel"),
        "the older name of the same driver",
    ),
    (
        "intel(r) opencl",
        Quirks("intel_cpu", shares_host_memory=True),
        "the CPU runtime: buffers are host memory",
    ),
    ("nvidia cuda", Quirks("nvidia"), "the program binary is PTX"),
    ("amd accelerated parallel processing", Quirks("amd"), "refuses binaries of another release"),
    ("oclgrind", Quirks("oclgrind", threads_build=False), "an interpreter; not thread-safe"),
    ("rusticl", Quirks("mesa"), "compiles in parallel"),
)


def quirks_of(platform: str) -> Quirks:
    """The quirks of a platform by its name; cautious ones for an unknown driver."""
    name = platform.lower()
    for pattern, quirks, _reason in _TABLE:
        if pattern in name:
            return quirks
    return Quirks("generic", threads_build=False)
