"""The part of `Core` that fills caches ahead of time, and says what they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinfer import properties as props
from clinfer.boundary import entry
from clinfer.core_devices import CoreDevices
from clinfer.errors import PropertyError
from clinfer.models import ModelLike

if TYPE_CHECKING:
    from clinfer.cache.coverage import Source as PackSource
    from clinfer.device.lock import Described, LockedDevice
    from clinfer.device.ocloc import OclocDevice
    from clinfer.feeds import Inputs
    from clinfer.plugins.base import Watch
    from clinfer.plugins.coverage import Coverage
    from clinfer.plugins.tune import Tuned
    from clinfer.plugins.tuning import Look
    from clinfer.plugins.warm import Warmed


class CoreCache(CoreDevices):
    """What the commands `warm`, `verify` and `tune` ask of a Core."""

    @entry("coverage")
    def coverage(
        self,
        model: ModelLike,
        device: str | LockedDevice = "AUTO",
        config: Mapping[str, Any] | None = None,
        packs: Sequence[PackSource] = (),
    ) -> Coverage:
        """Which of the entries that `compile_model` looks up are in the caches, or in the packs.

        Nothing is opened, built, run or written. The device may come from a lock file. Raises
        `ModelError`, `DeviceError`, `PropertyError` (also where there is no cache to look into).
        """
        from clinfer.plugins import plugin_for
        from clinfer.plugins.coverage import prove

        described = self._device(device) if isinstance(device, str) else device
        settings = self._settings.effective(described.info.name, config)
        if isinstance(device, str):
            described = self._device(device, settings[props.CPU_TARGET])
        described = described.at_precision(settings[props.INFERENCE_PRECISION_HINT])
        cache = self._settings.cache(settings)
        stores = [*packs]
        if cache is not None:
            stores += [*cache.observers, *([] if cache.remote is None else [cache.remote])]
        if not stores:
            raise PropertyError(
                "there is no cache to look into: set CACHE_DIR (--cache-dir), or name a pack"
            )
        plugin = plugin_for(described)
        return prove(plugin, self._models.digested(model), described, settings, stores)

    def seed_coverage(
        self, model: ModelLike, device: str | LockedDevice = "AUTO"
    ) -> dict[str, Any] | None:
        """What of a model's programs the installed seed has; None where none fits the device.

        'folder', 'target', what the seed says of itself, how many programs are 'needed', and why
        each that is 'missing' is. Nothing is built. Raises as `coverage`.
        """
        from clinfer.plugins.compiler import draft_model
        from clinfer.plugins.seed import Seed

        described = self._device(device) if isinstance(device, str) else device
        if isinstance(device, str):
            settings = self._settings.effective(described.info.name, None)
            described = self._device(device, settings[props.CPU_TARGET])
        found = Seed.of(described)
        if found is None:
            return None
        programs = draft_model(self._models.given(model), described).plan.programs
        missing = found.missing(programs)
        return {**found.to_json(), "needed": len(programs), "missing": missing}

    def tuning_data(self, device: Described) -> Look:
        """Gives the tuning data that `compile_model` would find for a device, by their key."""
        from clinfer.plugins.tuning import look_in

        cache = self._settings.cache(self._settings.effective(device.info.name, None))
        return look_in([] if cache is None else cache.observers)

    def watch_builds(self, watch: Watch | None) -> None:
        """Says who is told of what `compile_model` plans and builds from now on; None: nobody.

        `watch("build", 12)` gives a context manager, and that an object whose `step(label)` is
        called as each of the 12 is done, in some thread. What comes from the cache is not told.
        """
        self._watch = watch

    def warm(
        self,
        models: Mapping[str, Callable[[], ModelLike]],
        device: str | OclocDevice,
        watch: Watch,
        seconds: float,
        config: Mapping[str, Any] | None = None,
        lease: float | None = None,
    ) -> list[Warmed]:
        """Compiles models, each given by name when its turn comes, into the cache in force.

        With a `lease`, in seconds, as one of the workers that fill its remote store together. See
        `clinfer.plugins.warm` and `fleet`. Raises `CacheError` where nothing can be stored.
        """
        request = self._request(device, config, runs=False)
        plugin = self._plugin(request.device)
        sources = {
            name: lambda give=give: self._models.source(give(), request.cache)
            for name, give in models.items()
        }
        if lease is not None:
            from clinfer.plugins.fleet import warm_fleet

            return warm_fleet(plugin, sources, request, watch, seconds, lease)
        from clinfer.plugins.warm import warm

        return warm(plugin, sources, request, watch, seconds)

    @entry("tune")
    def tune(
        self,
        model: ModelLike,
        device: str,
        inputs: Inputs,
        watch: Watch,
        seconds: float,
        config: Mapping[str, Any] | None = None,
        again: bool = True,
    ) -> Tuned | None:
        """Measures every kernel candidate in the model, about that long, and keeps the choices.

        `inputs` are as for an inference. The cache in force gets the timings and the model compiled
        with them; without `again` nothing is measured, and None returned, where they are there.
        Raises `CacheError` where nothing can be stored, `InputError`, `DeviceError`.
        """
        from clinfer.feeds import Feed
        from clinfer.plugins.tune import tune

        request = self._request(device, config)
        plugin = self._plugin(request.device)
        read = self._models.given(model)
        source = self._models.source(read, request.cache)
        arrays = Feed(read.inputs).arranged(inputs)
        return tune(plugin, source, request, arrays, watch, seconds, again)
