"""clinfer's version, and `Version`: of clinfer and a device's driver."""

from __future__ import annotations

from typing import NamedTuple

__version__ = "0.1.0"


class Version(NamedTuple):
    """A version, and what it is the version of."""

    build_number: str
    description: str

    @property
    def major(self) -> int:
        """The first number."""
        return self._numbers()[0]

    @property
    def minor(self) -> int:
        """The second number."""
        return self._numbers()[1]

    @property
    def patch(self) -> int:
        """The third number."""
        return self._numbers()[2]

    def _numbers(self) -> list[int]:
        parts = self.build_number.split(".")
        return [int(part) if part.isdigit() else 0 for part in (*parts, "0", "0")[:3]]
