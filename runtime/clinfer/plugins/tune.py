"""Autotuning: every candidate of every kernel is measured where it will run, in the model itself.

In round i all problems that have an i-th candidate use it; the model runs in turn with and without,
and the driver's event times are summed per problem. So caches are as warm or cold as in use, and
what the machine does besides disturbs both sides alike. The idea to measure candidates in place is
that of cuDNN's and MIOpen's find modes; measuring in turn is usual in paired benchmarks.

A candidate that does not build, or gives other results, is not chosen and costs only itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.device.programs import SourceProgram, build_binaries, load
from clinfer.errors import BuildError, CacheError, ClinferError, DeviceError
from clinfer.plugins import tuning
from clinfer.plugins.base import Plugin, Request, Source, Watch
from clinfer.plugins.compiler import optimised, plan_graph, tuning_key
from clinfer.plugins.tuning import Timing
from clinfer.properties import COMPILATION_NUM_THREADS

if TYPE_CHECKING:
    from clinfer.device.executor import Session
    from clinfer.device.programs import BuiltProgram
    from clinfer.graph.ir import Graph
    from clinfer.lowering.choose import KernelChoice
    from clinfer.lowering.plan import Plan

LEAST_RUNS = 3
LEAST_GAIN = 0.03
"""A candidate must be faster than the default by this part to be chosen."""
_CLOSE = 1e-2


@dataclass(frozen=True)
class Tuned:
    """What tuning a model found. Seconds are of an inference's kernels, untuned and tuned.

    `problems` holds a timing per problem; `notes` says which candidates could not be used, and why.
    """

    untuned: float
    tuned: float
    problems: tuple[Timing, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> int:
        """How many problems have another kernel than untuned."""
        return sum(timing.chosen != timing.default for timing in self.problems)


def tune(
    plugin: Plugin,
    source: Source,
    request: Request,
    inputs: Sequence[Any],
    watch: Watch,
    seconds: float,
    again: bool = True,
) -> Tuned | None:
    """Measures for about that many seconds, stores what was found, and compiles the model with it.

    `inputs` are arrays by position to run with. Where the data are there already and `again` is
    false, nothing is done and None returned. Raises `CacheError` where the cache is not written to,
    `DeviceError` for a device that runs no kernels.
    """
    cache = request.cache
    if cache is None or not cache.mode.writes:
        raise CacheError("tuning needs a cache that is written to: set CACHE_DIR")
    if request.device.info.is_simulated:
        raise DeviceError(f"{request.device.info.full_name} is simulated and measures nothing")
    graph = optimised(source.read(), request.device)
    plan, choice = plan_graph(graph, request.device, {})
    record = tuning_key(choice, request.device)
    if not again and cache.recall(record) is not None:
        return None
    request = request._replace(extensions=source.extensions)
    found = _Tuner(graph, plan, choice, request, inputs).measure(watch, seconds)
    if not cache.put(record, tuning.sections(found.problems)) and cache.remote is None:
        raise CacheError(
            "the cache did not take the tuning data; see its statistics for the reason"
        )
    plugin.renew(source, request)
    return found


class _Tuner:
    """One graph on one device: its plans with various candidates, run and compared."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        choice: KernelChoice,
        request: Request,
        inputs: Sequence[Any],
    ) -> None:
        self._graph = graph
        self.choice = choice
        self._request = request
        self._inputs = inputs
        self._built: dict[str, BuiltProgram | ClinferError] = {}
        self._notes: list[str] = []
        self._base = self._session(plan)
        self._results = self._base.run(inputs)

    def measure(self, watch: Watch, seconds: float) -> Tuned:
        """Rounds over the candidates, within the time; then all choices together, as a proof."""
        problems = self.choice.problems
        rounds = max((len(p.tiles) for p in problems.values()), default=1)
        times: dict[str, list[float | None]] = {
            d: [None] * len(p.tiles) for d, p in problems.items()
        }
        end = time.monotonic() + seconds
        with watch("tune", rounds + 1) as shown:
            for index in range(rounds):
                if time.monotonic() > end and index:
                    self._notes.append(f"the time was over before candidate {index}")
                    break
                share = (end - time.monotonic()) / (rounds + 1 - index)
                self._round(index, times, share)
                shown.step(f"candidate {index + 1} of {rounds}")
            chosen = {digest: self._best(digest, times[digest]) for digest in problems}
            share = max(end - time.monotonic(), 0.0)
            untuned, tuned = self._compare(chosen, share)
            shown.step("all choices together")
        if tuned > untuned:
            self._notes.append("the choices together were not faster: the defaults stay")
            chosen = dict(self.choice.chosen)
            tuned = untuned
        timings = [self._timing(digest, chosen[digest], times[digest]) for digest in problems]
        return Tuned(untuned, tuned, tuple(timings), tuple(self._notes))

    def _round(self, index: int, times: dict[str, list[float | None]], seconds: float) -> None:
        """Fills `times[...][index]`, as the default's time by the ratio to it in this round."""
        default = self.choice.chosen
        wanted = {
            digest: index
            for digest, problem in self.choice.problems.items()
            if index < len(problem.tiles) and index != default[digest]
        }
        if not wanted:
            return
        session, wanted = self._candidate(wanted)
        if session is None:
            return
        base, other = self._in_turn(session, seconds)
        for digest in wanted:
            if digest not in base or digest not in other:
                continue
            known = times[digest][default[digest]]
            if known is None:
                known = times[digest][default[digest]] = base[digest]
            times[digest][index] = known * other[digest] / base[digest]

    def _candidate(self, wanted: dict[str, int]) -> tuple[Session | None, dict[str, int]]:
        """A session with those candidates; without the ones whose programs do not build."""
        plan, _ = plan_graph(self._graph, self._request.device, wanted)
        self._build(plan)
        broken = {
            step.problem
            for step in plan.launches
            if isinstance(self._built[plan.programs[step.program].digest], ClinferError)
        }
        if broken:
            wanted = {digest: i for digest, i in wanted.items() if digest not in broken}
            names = sorted(str(self.choice.problems[digest]) for digest in broken)
            self._notes.append(f"does not build: {', '.join(names)}")
            plan, _ = plan_graph(self._graph, self._request.device, wanted)
        try:
            session = self._session(plan)
            results = session.run(self._inputs)
        except (DeviceError, BuildError) as error:
            self._notes.append(f"candidates {sorted(set(wanted.values()))} not used: {error}")
            return None, {}
        if not all(map(_close, results, self._results)):
            self._notes.append(f"candidates {sorted(set(wanted.values()))} give other results")
            return None, {}
        return session, wanted

    def _in_turn(
        self, session: Session, seconds: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The median seconds per problem, with the base and with the other session.

        Not the least: where threads overtake each other, some runs show a launch far too short.
        """
        base: dict[str, list[float]] = {}
        other: dict[str, list[float]] = {}
        end = time.monotonic() + seconds
        runs = 0
        while runs < LEAST_RUNS or time.monotonic() < end:
            for which, found in ((self._base, base), (session, other)):
                which.run(self._inputs)
                for digest, value in _per_problem(which).items():
                    found.setdefault(digest, []).append(value)
            runs += 1
        return _medians(base), _medians(other)

    def _compare(self, chosen: Mapping[str, int], seconds: float) -> tuple[float, float]:
        """The kernels' seconds of an inference, untuned and with all choices."""
        different = {d: i for d, i in chosen.items() if i != self.choice.chosen[d]}
        session = self._candidate(different)[0] if different else None
        base, other = self._in_turn(session or self._base, min(seconds, 5.0))
        return sum(base.values()), sum((other if session else base).values())

    def _best(self, digest: str, seconds: Sequence[float | None]) -> int:
        default = self.choice.chosen[digest]
        known = seconds[default]
        if known is None:
            return default
        pairs = [(value, i) for i, value in enumerate(seconds) if value is not None]
        least, index = min(pairs)
        return index if least < known * (1 - LEAST_GAIN) else default

    def _timing(self, digest: str, chosen: int, seconds: Sequence[float | None]) -> Timing:
        problem = self.choice.problems[digest]
        default = self.choice.chosen[digest]
        tiles = tuple(map(repr, problem.tiles))
        return Timing(digest, str(problem), default, chosen, tiles, tuple(seconds))

    # -- building ------------------------------------------------------------------------------

    def _session(self, plan: Plan) -> Session:
        from clinfer.device.executor import LoadedPlan

        self._build(plan)
        programs = []
        for program in plan.programs:
            built = self._built[program.digest]
            if isinstance(built, ClinferError):
                raise built
            programs.append(built)
        extensions = self._request.extensions
        loaded = LoadedPlan(self._request.device, plan, programs, extensions)
        return loaded.session(profiling=True)

    def _build(self, plan: Plan) -> None:
        """Builds in worker processes what was not built before."""
        missing = [p for p in plan.programs if p.digest not in self._built]
        sources = [SourceProgram(p.source, p.options, p.entry, p.local_size) for p in missing]
        device = self._request.device

        def done(index: int, result: bytes | BuildError, seconds: float) -> None:
            made: BuiltProgram | ClinferError
            if isinstance(result, BuildError):
                made = result
            else:
                try:
                    made = load(device, sources[index], result)
                except ClinferError as error:
                    made = error
            self._built[missing[index].digest] = made

        build_binaries(device, sources, done, self._request.properties[COMPILATION_NUM_THREADS])


def _medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in values.items()}


def _per_problem(session: Session) -> dict[str, float]:
    """Seconds of the last run per problem; host steps are left out."""
    found: dict[str, float] = {}
    for step in session.profile:
        if step.problem:
            found[step.problem] = found.get(step.problem, 0.0) + step.seconds
    return found


def _close(left: Any, right: Any) -> bool:
    """Whether two results are the same within what another order of sums makes."""
    if not isinstance(left, np.ndarray) or left.dtype.kind not in "fc":
        return True
    scale = float(np.max(np.abs(right), initial=0.0)) or 1.0
    return bool(np.allclose(left, right, rtol=_CLOSE, atol=_CLOSE * scale, equal_nan=True))
