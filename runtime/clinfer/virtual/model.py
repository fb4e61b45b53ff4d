"""`VirtualModel`: a compiled model on several devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from clinfer import properties
from clinfer.boundary import entry
from clinfer.compiled import CompiledModel
from clinfer.errors import DeviceError

if TYPE_CHECKING:
    from clinfer.device.asked import Asked
    from clinfer.lowering.plan import HostStep, Plan
    from clinfer.models import Origin
    from clinfer.plugins.base import Session
    from clinfer.remote import RemoteContext
    from clinfer.transport import Reduced
    from clinfer.virtual.base import Group

Reducer: TypeAlias = Callable[
    [str, Mapping[str, Mapping[str, Any]], "Origin | None"], "Reduced"
]  # for `__reduce__`, of the name, the settings and the file
_OF_MAIN = ("_loaded", "_plugin", "_device", "_settings")


class VirtualModel(CompiledModel):
    """A model on the devices of a group. What is not asked of all of them is its main model's."""

    def __init__(
        self,
        group: Group,
        asked: Asked,
        settings: Mapping[str, Mapping[str, Any]],
        origin: Origin | None,
        reduced: Reducer,
    ) -> None:
        self._group = group
        self._asked = asked
        self._settings_of = settings
        self._reduced = reduced
        self._open(group.signature, origin)

    def __getattr__(self, name: str) -> Any:
        """Only of what this object does not have itself."""
        if name in _OF_MAIN:
            return getattr(self._group.main, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)

    def _more(self) -> Mapping[str, Callable[[], Any]]:
        members = self._group.members
        return {
            properties.EXECUTION_DEVICES: self._group.execution_devices,
            properties.MULTI_DEVICE_PRIORITIES: lambda: ",".join(self._asked.devices),
            properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS: self._group.requests,
            properties.LOADED_FROM_CACHE: lambda: all(m._loaded.loaded_from_cache for m in members),
            **self._group.readable(),
        }

    @entry("export_model", model_stream="file", user_stream="file")
    def export_model(self, file: BinaryIO | None = None) -> bytes | None:
        """Always raises `DeviceError`: what is exported belongs to one device."""
        raise DeviceError(
            f"a model on {self._label} is not exported: a blob is of one device. Compile it for "
            f"one, say compile_model(model, {self._asked.devices[-1]!r}).export_model()"
        )

    def get_context(self) -> RemoteContext:
        """Always raises `DeviceError`: a context and its buffers belong to one device."""
        raise DeviceError(
            f"a model on {self._label} has no context: buffers are of one device. Compile it for "
            f"one, say compile_model(model, {self._asked.devices[0]!r}).get_context()"
        )

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """The operators without a kernel, each with the reason."""
        return tuple(step for model in self._group.members for step in model.host_steps)

    @property
    def programs_built(self) -> int:
        """How many programs had to be built from source for the devices there are so far."""
        return sum(model.programs_built for model in self._group.members)

    def release_memory(self) -> None:
        """Gives back the buffers of calls that have ended."""
        super().release_memory()
        for model in self._group.members:
            model.release_memory()

    @property
    def _plans(self) -> Sequence[Plan]:
        return self._group.plans

    def _session(self) -> Session:
        return self._group.session()

    @property
    def _label(self) -> str:
        """'AUTO:GPU,CPU'."""
        pairs = zip(self._asked.devices, self._asked.counts, strict=True)
        names = (f"{name}({count})" if count else name for name, count in pairs)
        return f"{self._asked.mode}:{','.join(names)}"

    @property
    def _where(self) -> str:
        return f"{self._label}, now on {', '.join(self._group.execution_devices())}"

    def __reduce__(self) -> Reduced:
        """Sends it to another process; see `clinfer.virtual.compiling`."""
        return self._reduced(self._label, self._settings_of, self._origin)
