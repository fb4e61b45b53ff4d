"""What is built: a text with one kernel."""

from __future__ import annotations

import re
from typing import NamedTuple

from clinfer.errors import BuildError
from clinfer.sha256 import sha256

# What a compiler says where the machine lacks something, and what to do about it.
_REMEDIES = (
    ('"ld" doesn', "PoCL links kernels with 'ld', which is not on PATH: install binutils"),
    ("No space left", "the folder for temporary files is full: make room, or set TMPDIR"),
    ("annot allocate memory", "the machine's memory is full: close other programs"),
)
_OURS = "please report it with the error's log (attribute 'log', or CLINFER_LOG=info)"
_THEIRS = "it is the text of an extension: correct that (attribute 'log' numbers its lines)"
SECONDS_PER_PROGRAM = 300.0
"""How long a build may take by default."""
STANDARD = "-cl-std=CL1.2"


class SourceProgram(NamedTuple):
    """An OpenCL C text with one kernel, `entry`, always launched with groups of `local_size`."""

    source: str
    options: str
    entry: str
    local_size: tuple[int, ...] = (1,)

    @property
    def digest(self) -> str:
        """SHA-256 over the source and the options, in hex."""
        return sha256(f"{self.options}\0{self.source}".encode()).hexdigest()

    @property
    def all_options(self) -> list[str]:
        """The build options, with the language's version."""
        return f"{STANDARD} {self.options}".split()

    @property
    def group(self) -> tuple[int, int, int]:
        """The work-group's size in three dimensions."""
        x, y, z = [*self.local_size, 1, 1][:3]
        return x, y, z

    def numbered(self) -> str:
        """The text with line numbers, as drivers' logs name them."""
        lines = enumerate(self.source.splitlines(), start=1)
        return "\n".join(f"{i:4} {line}" for i, line in lines)


def failed(source: SourceProgram, log: str, why: str = "it does not build") -> BuildError:
    """The error of a program, with the compiler's first error in the message."""
    from clinfer.operators.custom_kernel import HEADING

    first, _, _ = source.source.partition("\n")
    default = _THEIRS if first.startswith(HEADING) else _OURS
    remedy = next((text for sign, text in _REMEDIES if sign in log), default)
    said = _first_error(log)
    where = f"kernel '{source.entry}'"
    return BuildError(f"{where}: {why}{f': {said}' if said else ''}; {remedy}", log)


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = (line for line in lines if re.search(r"\berror:", line, re.IGNORECASE))
    last = lines[-1] if lines else ""
    return re.sub(r"\S*/\S+\.cl:", "line ", next(named, last))
