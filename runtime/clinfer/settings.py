"""Properties in force, and the caches they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer import properties

if TYPE_CHECKING:
    from clinfer.cache.layers import Layers


class Settings:
    """What was set for all devices and for each, and one object per cache, for its statistics."""

    def __init__(self) -> None:
        self._common: dict[str, Any] = {}
        self._of_device: dict[str, dict[str, Any]] = {}
        self._caches: dict[tuple[str, str, str, int], Layers] = {}

    def update(self, values: Mapping[str, Any], device: str | None = None) -> None:
        """Sets properties for one device; None: for all. Raises `PropertyError`."""
        parsed = properties.parse(values)
        target = self._common if device is None else self._of_device.setdefault(device, {})
        target.update(parsed)

    def of(self, device: str) -> Mapping[str, Any]:
        """What was set for a device, or for a name of several ('AUTO'), and nothing else."""
        return self._of_device.get(device, {})

    def common(self, name: str) -> Any:
        """What was set for all devices, else the default. Raises `PropertyError`."""
        if name in properties.SETTABLE:
            return self._common.get(name, properties.SETTABLE[name].default())
        raise properties.unknown_to_read(name)

    def check(self, config: Any) -> None:
        """Raises `PropertyError` for properties of a call that are unknown or unfit."""
        if config is not None:
            properties.parse(properties.mapping(config))

    def effective(self, device: str, config: Any) -> dict[str, Any]:
        """Properties in force: the call's, else the device's, else the Core's, else defaults."""
        values = {name: entry.default() for name, entry in properties.SETTABLE.items()}
        values.update(self._common)
        values.update(self._of_device.get(device, {}))
        values.update(properties.parse({} if config is None else properties.mapping(config)))
        return values

    def place_driver_caches(self, config: Any) -> None:
        """Before drivers are loaded: theirs go beside the cache of a call, else the common one."""
        given = {} if config is None else properties.mapping(config)

        def value(name: str) -> Any:
            known = properties.SETTABLE[name]
            return known.parse(given[name]) if name in given else self.common(name)

        try:
            directory, mode = value(properties.CACHE_DIR), value(properties.CACHE_MODE)
        except (ValueError, TypeError):  # `effective` says what is wrong with it
            return
        if directory and mode == "read-write":
            from clinfer.cache.store import Store
            from clinfer.device.driver_caches import keep_in

            keep_in(Store(directory))

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
        size = int(settings[properties.CACHE_SIZE])
        key = (directory, store, mode, size)
        if key not in self._caches:
            self._caches[key] = Layers.open(directory, store=store, mode=mode, size_limit=size)
        return self._caches[key]

    def to_send(self) -> Settings:
        """The same properties for another process, with a current directory of its own."""
        found = Settings()
        found._common = settled(self._common)
        found._of_device = {name: settled(values) for name, values in self._of_device.items()}
        return found

    def cache_statistics(self) -> list[dict[str, Any]]:
        """As `Core.cache_statistics`."""
        return [
            {
                "directory": directory,
                "store": "" if cache.remote is None else cache.remote.place,
                **cache.stats.to_json(),
                "remote": None if cache.remote is None else cache.remote.stats.to_json(),
            }
            for (directory, *_), cache in self._caches.items()
        ]


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that mean the same in a process with another current directory."""
    found = dict(settings)
    if found.get(properties.CACHE_DIR):
        found[properties.CACHE_DIR] = str(Path(found[properties.CACHE_DIR]).expanduser().absolute())
    return found
