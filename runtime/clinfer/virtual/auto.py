"""AUTO: the CPU answers while the best device compiles, then that one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, finalize, ref

from clinfer import forks
from clinfer.boundary import as_ours
from clinfer.errors import (
    CacheError,
    ClinferError,
    DeviceError,
    OutOfMemoryError,
    PropertyError,
    UnsupportedError,
)
from clinfer.log import Log
from clinfer.properties import ENABLE_STARTUP_FALLBACK
from clinfer.virtual import background
from clinfer.virtual.background import Wanted
from clinfer.virtual.base import Group

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.device.asked import Asked
    from clinfer.device.profile import StepTime
    from clinfer.plugins.base import Session
    from clinfer.virtual.parts import Part, Recipe

_LOG = Log("clinfer.virtual")
_DEVICES_FAULT = (DeviceError, CacheError, OutOfMemoryError, PropertyError, UnsupportedError)
"""What another device may do without; other errors are the model's."""


def make(asked: Asked, recipe: Recipe, parts: Sequence[Part]) -> Handover:
    """The model on the best device that compiles it, or on a CPU until that one is ready.

    Raises the first device's error where none compiles it.
    """
    cpu = next((i for i, part in enumerate(parts) if part.is_cpu), 0)
    if cpu and parts[0].settings[ENABLE_STARTUP_FALLBACK]:
        try:
            helper = recipe.model(parts[cpu])
        except _DEVICES_FAULT as error:
            _LOG.info("AUTO: %s does not help: %s", parts[cpu].device, error)
            return Handover(first_of(recipe, [*parts[:cpu], *parts[cpu + 1 :]]))
        group = Handover(helper, is_helping=True)
        group.prepare(partial(_first_wanted, recipe, parts[:cpu]))
        return group
    return Handover(first_of(recipe, parts))


def first_of(recipe: Recipe, parts: Sequence[Part], wanted: Wanted | None = None) -> CompiledModel:
    """The model on the first device that compiles it; a warning tells of those that do not."""
    errors: list[Exception] = []
    for part in parts:
        try:
            return recipe.model(part, None if wanted is None else wanted.watch(part.watch))
        except _DEVICES_FAULT as error:  # noqa: PERF203
            errors.append(error)
            if len(errors) < len(parts):
                _LOG.warning("AUTO does without %s: %s", part.device, error)
    raise errors[0]


def _first_wanted(recipe: Recipe, parts: Sequence[Part], wanted: Wanted) -> CompiledModel:
    """As `first_of`, with a session that is ready: what fails there fails before the hand-over."""
    model = first_of(recipe, parts, wanted)
    model._idle.append(model._session())
    return model


class Handover(Group):
    """One model, until another one takes its place.

    A session asks for the model at the beginning of each run, so a run is of one model from its
    inputs to its outputs.
    """

    def __init__(self, model: CompiledModel, is_helping: bool = False) -> None:
        self._model = model
        self._is_helping = is_helping
        self._wanted: Wanted | None = None
        self._sessions: WeakSet[_Following] = WeakSet()
        self._lock = forks.new_lock()
        forks.inherit(self)

    def prepare(self, compile_it: background.Compile) -> None:
        """Compiles the model that is to take over, in a thread that does not keep this group."""
        wanted = self._wanted = Wanted()
        finalize(self, wanted.drop)
        weak = ref(self)

        def done(found: CompiledModel | BaseException) -> None:
            group = weak()
            if group is not None:
                group.take(found)

        try:
            background.start(compile_it, wanted, done)
        except RuntimeError as error:
            self.take(ClinferError(f"no thread can be started: {error}"))

    def take(self, found: CompiledModel | BaseException) -> None:
        """Hands over to a model, or says why there is none to hand over to."""
        if isinstance(found, BaseException):
            if isinstance(found, Exception) and not isinstance(found, ClinferError):
                found = as_ours(found, "compile_model, in the background")
            _LOG.warning("AUTO stays on %s: %s", self._model.device.info.name, found)
            with self._lock:
                self._is_helping = False
            return
        with self._lock:
            self._model = found
            self._is_helping = False
            self._wanted = None
            sessions = list(self._sessions)
        _LOG.info("AUTO goes on with %s", found.device.info.name)
        for session in sessions:
            session.let_go()

    def answered(self) -> None:
        """A run is over."""
        wanted = self._wanted
        if wanted is not None:
            wanted.begin()

    def after_fork(self) -> None:
        """In a forked child: the thread that compiles is the parent's."""
        self._is_helping, self._wanted = False, None

    @property
    def main(self) -> CompiledModel:
        return self._model

    @property
    def members(self) -> Sequence[CompiledModel]:
        return (self._model,)

    def execution_devices(self) -> list[str]:
        with self._lock:
            name, is_helping = self._model.device.info.name, self._is_helping
        return [f"({name})" if is_helping else name]

    def session(self) -> Session:
        made = _Following(self)
        with self._lock:
            self._sessions.add(made)
        return made


class _Following:
    """A session of whichever model the group has."""

    def __init__(self, group: Handover) -> None:
        self._group = group
        self._lock = forks.new_lock()  # of a run
        self._held: tuple[CompiledModel, Session] | None = None
        self.profile: tuple[StepTime, ...] = ()
        self._follow()

    def check(self, inputs: Sequence[Any]) -> None:
        self._follow().check(inputs)

    def run(self, inputs: Sequence[Any], into: Mapping[int, Any] | None = None) -> list[Any]:
        with self._lock:
            session = self._follow()
            try:
                return session.run(inputs, into)
            finally:
                self.profile = session.profile
                self._let_go()
                self._group.answered()

    def let_go(self) -> None:
        """Gives back what it holds of another model than the group's, unless a run uses it."""
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        held = self._held
        if held is not None and held[0] is not self._group.main:
            self._held = None

    def _follow(self) -> Session:
        held, model = self._held, self._group.main
        if held is None or held[0] is not model:
            try:
                session = model._idle.pop()
            except IndexError:
                session = model._session()
            self._held = held = (model, session)
        return held[1]
