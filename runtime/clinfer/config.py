"""Every environment variable clinfer reads, in one table.

A variable is read when it is used, never at import, so that a program may set it first. An unset or
empty variable means its default; a value that cannot be understood raises `PropertyError`, which
names the variable, what was expected and what was found. Properties set by the application win over
these; that order is kept by whoever reads both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from clinfer.errors import PropertyError

T = TypeVar("T")

DYNAMIC = "dynamic"
"""The precision of a device's own choice: float32's error, by the unit that is fastest at it."""
CACHE_MODES = ("read-write", "read-only", "cache-only", "off")
CPU_TARGETS = (
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "nehalem",
    "sandybridge",
    "haswell",
    "broadwell",
    "skylake",
    "znver1",
    "znver2",
    "znver3",
    "skylake-avx512",
    "cascadelake",
    "icelake-server",
)
LOG_LEVELS = ("off", "error", "warning", "info", "debug")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_TRUTH = {"1": True, "true": True, "yes": True, "on": True}
_FALSEHOOD = {"0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Variable(Generic[T]):
    """One environment variable: `expects` says in words what `parse` takes."""

    name: str
    expects: str
    parse: Callable[[str], T]
    default: T
    doc: str

    @property
    def is_set(self) -> bool:
        """Whether the environment says anything."""
        return bool(os.environ.get(self.name, "").strip())

    def get(self) -> T:
        """The value now. Raises PropertyError where the text is not what `expects` says."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError:
            message = f"environment variable {self.name}: expected {self.expects}, found {text!r}"
            raise PropertyError(message) from None


def parse_size(text: str) -> int:
    """Bytes from '1073741824', '64K', '512M', '8G' or '1T' (powers of 1024).

    Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_flag(text: str) -> bool:
    """True or False from 1/0, true/false, yes/no, on/off. Raises ValueError for anything else."""
    known = {**_TRUTH, **_FALSEHOOD}
    word = text.lower()
    if word not in known:
        raise ValueError(text)
    return known[word]


def _parse_count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def _parse_seconds(text: str) -> float:
    seconds = float(text)
    if not 0.0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _parse_paths(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(os.pathsep) if part)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.lower()
        if word not in choices:
            raise ValueError(text)
        return word

    return parse


GPU_PLATFORM = Variable[str | None](
    "CLINFER_GPU_PLATFORM",
    "part of an OpenCL platform's name",
    str,
    None,
    "Presents the devices of that platform as GPUs, whatever their type.",
)
CPU_PLATFORM = Variable[str | None](
    "CLINFER_CPU_PLATFORM",
    "part of an OpenCL platform's name",
    str,
    None,
    "Only that platform's CPU devices are offered.",
)
OCLOC = Variable[str | None](
    "CLINFER_OCLOC",
    "a program",
    str,
    None,
    "Intel's offline compiler, for 'clinfer warm' of GPUs that are elsewhere; default: on PATH.",
)
CPU_TARGET = Variable[str](
    "CLINFER_CPU_TARGET",
    f"one of {', '.join(CPU_TARGETS)}",
    _one_of(CPU_TARGETS),
    "",
    "The processor that code is made for, where it is not this machine's.",
)
CACHE_DIR = Variable[str | None](
    "CLINFER_CACHE_DIR",
    "a directory",
    str,
    None,
    "The writable cache directory, for applications that set no CACHE_DIR property.",
)
CACHE_PATH = Variable[tuple[str, ...]](
    "CLINFER_CACHE_PATH",
    f"directories separated by '{os.pathsep}'",
    _parse_paths,
    (),
    "Read-only cache directories that are searched after the writable one, in this order.",
)
CACHE_MODE = Variable[str](
    "CLINFER_CACHE_MODE",
    f"one of {', '.join(CACHE_MODES)}",
    _one_of(CACHE_MODES),
    "read-write",
    "Whether the cache is read and written; 'cache-only' raises instead of compiling.",
)
CACHE_SIZE = Variable[int](
    "CLINFER_CACHE_SIZE",
    "bytes, with K, M, G or T for powers of 1024",
    parse_size,
    16 * 2**30,
    "Size limit of the writable cache; the least recently used entries go first. 0: no limit.",
)
CACHE_ALLOW_SHARED = Variable[bool](
    "CLINFER_CACHE_ALLOW_SHARED",
    "1 or 0",
    parse_flag,
    False,
    "Uses a cache directory that other users can write. They can then run code in this process.",
)
CACHE_READABLE = Variable[bool](
    "CLINFER_CACHE_READABLE",
    "1 or 0",
    parse_flag,
    False,
    "What is stored can be read by every user, as a shared layer must be; its owner alone writes.",
)
CACHE_STORE = Variable[str | None](
    "CLINFER_CACHE_STORE",
    "a URL that fsspec knows, say s3://bucket/folder",
    str,
    None,
    "A remote store below the cache directories: what it has is copied, what is built is pushed.",
)
CACHE_STORE_TIMEOUT = Variable[float](
    "CLINFER_CACHE_STORE_TIMEOUT",
    "seconds above 0",
    _parse_seconds,
    10.0,
    "How long the remote store may take to answer, and between two pieces of what it sends.",
)
SEED = Variable[bool](
    "CLINFER_SEED",
    "1 or 0",
    parse_flag,
    True,
    "Uses the programs of the installed package clinfer-seed, where there is one.",
)
TRUST = Variable[tuple[str, ...]](
    "CLINFER_TRUST",
    f"files with public keys, separated by '{os.pathsep}'",
    _parse_paths,
    (),
    "Whose signatures count on packs and on the entries of a remote store.",
)
TRUST_FILE = Variable[str | None](
    "CLINFER_TRUST_FILE",
    "a file",
    str,
    None,
    "Where the serial numbers of accepted packs are remembered.",
)
ALLOW_UNSIGNED = Variable[bool](
    "CLINFER_ALLOW_UNSIGNED",
    "1 or 0",
    parse_flag,
    False,
    "Takes packs and remote entries without a signature. Who can change them can run code here.",
)
SIGN_KEY = Variable[str | None](
    "CLINFER_SIGN_KEY",
    "a file with a private key",
    str,
    None,
    "The key that signs packs and what is pushed to a remote store.",
)
LOG = Variable[str](
    "CLINFER_LOG",
    f"one of {', '.join(LOG_LEVELS)}",
    _one_of(LOG_LEVELS),
    "warning",
    "How much is logged to standard error.",
)
COMPILE_JOBS = Variable[int](
    "CLINFER_COMPILE_JOBS",
    "a number of 0 or more",
    _parse_count,
    0,
    "How many programs are built at the same time. 0: as many as there are processor cores.",
)

SERVE_API_KEY = Variable[str | None](
    "CLINFER_SERVE_API_KEY",
    "a line of text",
    str,
    None,
    "The key that clients of 'clinfer serve' must give.",
)

ORT_DEVICE = Variable[str | None](
    "CLINFER_ORT_DEVICE",
    "a device's name",
    str,
    None,
    "The device of sessions of clinfer.ort, whatever providers a program asks for.",
)

JOB_COMPLETION_INDEX = Variable[int | None](
    "JOB_COMPLETION_INDEX",
    "a number of 0 or more",
    _parse_count,
    None,
    "Which part of an indexed Job this process is, from 0; Kubernetes sets it.",
)
JOB_COMPLETIONS = Variable[int | None](
    "JOB_COMPLETIONS",
    "a number of 0 or more",
    _parse_count,
    None,
    "How many parts an indexed Job has; its template sets it.",
)

VARIABLES: tuple[Variable[Any], ...] = (
    GPU_PLATFORM,
    CPU_PLATFORM,
    OCLOC,
    CPU_TARGET,
    CACHE_DIR,
    CACHE_PATH,
    CACHE_MODE,
    CACHE_SIZE,
    CACHE_ALLOW_SHARED,
    CACHE_READABLE,
    CACHE_STORE,
    CACHE_STORE_TIMEOUT,
    SEED,
    TRUST,
    TRUST_FILE,
    ALLOW_UNSIGNED,
    SIGN_KEY,
    LOG,
    COMPILE_JOBS,
    ORT_DEVICE,
    SERVE_API_KEY,
)
