"""The part of `Core` that has to do with devices and properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from clinfer import forks
from clinfer import properties as props
from clinfer.boundary import entry
from clinfer.errors import DeviceError, PropertyError
from clinfer.log import follow_environment
from clinfer.models import Models
from clinfer.names import is_virtual, mode_of
from clinfer.settings import Settings

if TYPE_CHECKING:
    from clinfer.device.asked import Asked
    from clinfer.device.discover import Device
    from clinfer.plugins.base import Plugin, Request, Watch


class CoreDevices:
    """Devices, opened once, and the properties in force for them."""

    def __init__(self) -> None:
        """Raises `PropertyError` where CLINFER_LOG is not understood."""
        follow_environment()
        self._settings = Settings()
        self._devices: dict[tuple[str, str], Device] = {}
        self._models = Models()
        self._watch: Watch | None = None
        self._lock = forks.new_lock()

    @property
    def available_devices(self) -> list[str]:
        """Names of the devices: 'CPU', 'GPU'; of several of a kind 'GPU.0', 'GPU.1' ...

        Raises `DeviceError` where no OpenCL platform is installed.
        """
        from clinfer.device.discover import list_devices

        return [info.name for info in list_devices()]

    @entry("set_property", device="device_name", values="properties")
    def set_property(self, device_name: Any = None, properties: Any = None) -> None:
        """Sets properties for all devices, or for one: `set_property("CPU", {"CACHE_DIR": "c"})`.

        Properties are a dict, or the pair that `clinfer.properties.cache_dir("c")` makes. Raises
        `PropertyError` for an unknown property or a value it does not take.
        """
        if properties is None and not isinstance(device_name, str):
            device_name, properties = None, device_name
        values = props.mapping(properties)
        if device_name is None:
            self._settings.update(values)
        elif is_virtual(device_name):
            self._settings.update(values, mode_of(device_name))
        else:
            self._settings.update(values, self._device(device_name).info.name)

    @entry("get_property", device="device_name", property="name")
    def get_property(self, device_name: Any = None, name: Any = None) -> Any:
        """A property of a device, or of the Core where only the property's name is given."""
        if device_name is None or name is None:
            name, device_name = device_name if name is None else name, None
        if not isinstance(name, str) or not isinstance(device_name, (str, type(None))):
            raise PropertyError(
                f"get_property takes a device's name and a property's, found {device_name!r}, "
                f"{name!r}"
            )
        if device_name is None:
            known = name == props.AVAILABLE_DEVICES
            return self.available_devices if known else self._settings.common(name)
        if is_virtual(device_name):
            asked = self._asked(device_name)
            if asked.mode not in ("", "AUTO"):
                return self._of_several(asked, name)
        opened = self._device(device_name)
        readable = self._readable(opened)
        if name in readable:
            return readable[name]()
        settings = self._settings.effective(opened.info.name, self._set_for(device_name))
        if name in settings:
            return settings[name]
        raise props.unknown_to_read(name)

    def _readable(self, opened: Device) -> dict[str, Callable[[], Any]]:
        """What can be read of a device beside the settings."""
        plugin = self._plugin(opened)
        found: dict[str, Callable[[], Any]] = {
            props.FULL_DEVICE_NAME: lambda: opened.info.full_name,
            props.OPTIMIZATION_CAPABILITIES: lambda: list(plugin.capabilities(opened)),
            props.DEVICE_TYPE: lambda: opened.target.cls,
            props.DEVICE_ARCHITECTURE: lambda: opened.info.processor or opened.info.device_version,
            props.AVAILABLE_DEVICES: lambda: self.available_devices,
            props.OPTIMAL_NUMBER_OF_INFER_REQUESTS: lambda: 1,
            props.RANGE_FOR_STREAMS: lambda: (1, opened.found.compute_units),
            props.RANGE_FOR_ASYNC_INFER_REQUESTS: lambda: (1, opened.found.compute_units, 1),
            props.SUPPORTED_PROPERTIES: lambda: [*props.SETTABLE, *found],
        }
        return found

    def _of_several(self, asked: Asked, name: str) -> Any:
        """A property of several devices as one."""
        if name == props.OPTIMIZATION_CAPABILITIES:
            opened = [self._device(device) for device in asked.devices]
            each = [self._plugin(device).capabilities(device) for device in opened]
            shared = [c for c in each[0] if all(c in others for others in each)]
            return [c for c in shared if c != props.EXPORT_IMPORT]
        settings = self._settings.effective(asked.mode, None)
        known: dict[str, Any] = {
            **settings,
            props.FULL_DEVICE_NAME: asked.mode,
            props.AVAILABLE_DEVICES: list(asked.devices),
            props.MULTI_DEVICE_PRIORITIES: ",".join(asked.devices),
        }
        if name == props.SUPPORTED_PROPERTIES:
            return [*known, props.OPTIMIZATION_CAPABILITIES, name]
        if name in known:
            return known[name]
        raise props.unknown_to_read(name)

    @entry("unload_plugin", device="device_name")
    def unload_plugin(self, device_name: str) -> None:
        """Gives back a device that was opened; the next use opens it again.

        Raises `DeviceError` where there is no such device.
        """
        opened = self._device(device_name)
        with self._lock:
            self._devices = {k: d for k, d in self._devices.items() if d.cl is not opened.cl}

    def cache_statistics(self) -> list[dict[str, Any]]:
        """What each cache in use did in this process: hits, misses by reason, bytes, seconds saved.

        The names are those of `clinfer.cache.Stats`, with 'directory' and 'store' (a URL); what the
        remote store did is apart, under 'remote'.
        """
        return self._settings.cache_statistics()

    def _device(self, name: str, cpu_target: str = "") -> Device:
        """The device, opened once for each CPU_TARGET."""
        from clinfer.device.discover import open_device

        if not isinstance(name, str):
            raise DeviceError(
                f"expected the name of a device, say 'CPU' or 'GPU.1'; found {name!r}"
            )
        key = (name, cpu_target)
        with self._lock:
            if key not in self._devices:
                self._devices[key] = open_device(name, cpu_target)
            return self._devices[key]

    @staticmethod
    def _plugin(device: Device) -> Plugin:
        from clinfer.plugins import plugin_for

        return plugin_for(device)

    def _request(self, device: Any, config: Any, runs: bool = True) -> Request:
        """What a compilation needs; unless it `runs` here, CPU_TARGET may be beyond the machine."""
        from clinfer.device.lock import LockedDevice
        from clinfer.plugins.base import Request

        if isinstance(device, LockedDevice):  # there is nothing to open
            settings = self._settings.effective(device.info.name, config)
            locked: Any = device.at_precision(settings[props.INFERENCE_PRECISION_HINT])
            cache = self._settings.cache(settings)
            return Request(locked, settings, cache, self._watch or unwatched())
        shared = hasattr(device, "create_tensor")  # a RemoteContext
        if not shared:
            device, config = self._named(device, config)
        self._settings.place_driver_caches(config)
        opened = device.device if shared else self._device(device)
        settings = self._settings.effective(opened.info.name, config)
        target = settings[props.CPU_TARGET]
        opened = opened.aimed(target) if shared else self._device(device, target)
        opened = opened.at_precision(settings[props.INFERENCE_PRECISION_HINT])
        if runs:
            opened.require_runs()
        else:
            opened.require_driver()
        cache = self._settings.cache(settings)
        watch = self._watch or unwatched()
        return Request(opened, settings, cache, watch, self._models.extensions)

    def _ready(self, name: str, cpu_target: str) -> Device:
        """A device to run on."""
        opened = self._device(name, cpu_target)
        opened.require_runs()
        return opened

    @staticmethod
    def _asked(name: str) -> Asked:
        from clinfer.device.discover import asked_for

        return asked_for(name)

    def _named(self, device: str, config: Any) -> tuple[str, Any]:
        """A device's name with the priorities, and the properties of a call for that name."""
        if config is not None:
            device, config = props.with_priorities(device, props.mapping(config))
        return device, {**self._set_for(device), **(config or {})}

    def _set_for(self, device: str) -> Mapping[str, Any]:
        """What was set for 'AUTO' and the like; nothing for a device's own name."""
        return self._settings.of(mode_of(device)) if is_virtual(device) else {}


def unwatched() -> Watch:
    from clinfer.plugins.base import unwatched

    return unwatched
