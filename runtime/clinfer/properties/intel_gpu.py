"""Properties of OpenVINO's GPU plugin, none with an effect here."""

from __future__ import annotations

from typing import Any

from clinfer.properties import names


def __getattr__(name: str) -> Any:
    return names.member("intel_gpu", name)


def __dir__() -> list[str]:
    return names.members("intel_gpu")
