"""Properties of devices: `device.capabilities`, `device.full_name`."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("device", name)


def __dir__() -> list[str]:
    return names.members("device")
