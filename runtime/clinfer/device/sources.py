"""What is built: a text with one kernel."""

from __future__ import annotations

from typing import NamedTuple

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
