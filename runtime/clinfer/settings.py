"""Properties in force, and the caches they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clinfer import properties
from clinfer.errors import PropertyError

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers


class Settings:
    """What was set for all devices and for each, and one object per cache, for its statistics."""

    def __init__(self) -> None:
        self._common: dict[str, Any] = {}
        self._of_device: dict[str, dict[str, Any]] = {}
        self._caches: dict[tuple[str, str, str], Layers] = {}

    def update(self, values: Mapping[str, Any], device: str | None = None) -> None:
        """Sets properties for one device; None: for all. Raises `PropertyError`."""
        parsed = properties.parse(values)
        target = self._common if device is None else self._of_device.setdefault(device, {})
        target.update(parsed)

    def common(self, name: str) -> Any:
        """What was set for all devices, else the default. Raises `PropertyError`."""
        if name in properties.SETTABLE:
            return self._common.get(name, properties.SETTABLE[name].default())
        raise properties.unknown_to_read(name)

    def effective(self, device: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """Properties in force: the call's, else the device's, else the Core's, else defaults."""
        if config is not None and not isinstance(config, Mapping):
            raise PropertyError(
                f"properties are a dict of names and values; found {type(config).__name__}"
            )
        values = {name: entry.default() for name, entry in properties.SETTABLE.items()}
        values.update(self._common)
        values.update(self._of_device.get(device, {}))
        values.update(properties.parse(config or {}))
        return values

    def cache(self, settings: Mapping[str, Any]) -> Layers | None:
        """The cache the properties name; one object for its statistics."""
        from clinfer import config
        from clinfer.cache.layers import Layers

        directory = str(settings[properties.CACHE_DIR])
        store = str(settings[properties.CACHE_STORE])
        mode = str(settings[properties.CACHE_MODE])
        somewhere = directory or store or config.CACHE_PATH.get()
        if mode == "off" or (not somewhere and mode != "cache-only"):
            return None
        key = (directory, store, mode)
        if key not in self._caches:
            self._caches[key] = Layers.open(directory, store=store, mode=mode)
        return self._caches[key]

    def cache_statistics(self) -> list[dict[str, Any]]:
        """As `Core.cache_statistics`."""
        return [
            {
                "directory": directory,
                "store": "" if cache.remote is None else cache.remote.place,
                **cache.stats.to_json(),
                "remote": None if cache.remote is None else cache.remote.stats.to_json(),
            }
            for (directory, _, _), cache in self._caches.items()
        ]
