"""Plugins: what each kind of device does with models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clinfer.device.lock import Described
    from clinfer.plugins.base import Plugin


def plugin_for(device: Described) -> Plugin:
    """The plugin of a device, by the class it is presented as."""
    if device.target.cls == "gpu":
        from clinfer.plugins.gpu import GpuPlugin

        return GpuPlugin()
    from clinfer.plugins.cpu import CpuPlugin

    return CpuPlugin()
