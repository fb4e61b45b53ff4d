"""What the models of a group are made of: one source, and a part for each device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.compiled import CompiledModel
from clinfer.errors import ModelError
from clinfer.plugins import plugin_for
from clinfer.plugins.base import Request, Source, Watch, unwatched

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers
    from clinfer.device.discover import Device
    from clinfer.graph.model import Model
    from clinfer.models import Origin


class Part(NamedTuple):
    """One of the devices: its name, the properties in force, the cache, and how it is opened.

    Opening a GPU takes long, so that is left to whoever compiles for it.
    """

    device: str
    settings: Mapping[str, Any]
    cache: Layers | None
    opened: Callable[[], Device]
    watch: Watch = unwatched

    @property
    def is_cpu(self) -> bool:
        return self.device.startswith("CPU")


class Recipe(NamedTuple):
    """What is compiled. It stays the same, whatever becomes of its file and of the user's model."""

    source: Source
    origin: Origin | None

    def model(self, part: Part, watch: Watch | None = None) -> CompiledModel:
        """The model on one device. `watch` is told of the work instead of the part's own."""
        device = part.opened()
        request = Request(device, part.settings, part.cache, watch or part.watch)
        plugin = plugin_for(device)
        loaded = plugin.compile(self.source._replace(read=self._read), request)
        return CompiledModel(loaded, plugin, device, part.settings, self.origin)

    def _read(self) -> Model:
        """Raises `ModelError` where the file is not any more what another device has compiled."""
        found = self.source.read()
        if not self.source.unchanged():
            raise ModelError("the model's file has changed since it was compiled for one device")
        return found
