"""Properties of logging: CLINFER_LOG is what has an effect."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("log", name)


def __dir__() -> list[str]:
    return names.members("log")
