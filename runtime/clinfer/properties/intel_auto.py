"""Properties of OpenVINO's AUTO, none with an effect here."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("intel_auto", name)


def __dir__() -> list[str]:
    return names.members("intel_auto")
