"""Properties of requests side by side: `streams.num`."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("streams", name)


def __dir__() -> list[str]:
    return names.members("streams")
