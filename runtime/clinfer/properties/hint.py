"""Properties that say what is wanted, not how: `hint.performance_mode`."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("hint", name)


def __dir__() -> list[str]:
    return names.members("hint")
