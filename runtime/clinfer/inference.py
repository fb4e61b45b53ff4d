"""Requests: one inference at a time each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

from clinfer import feeds, forks
from clinfer.device.results import own
from clinfer.errors import ClinferError
from clinfer.feeds import Inputs
from clinfer.ports import Port, index_of
from clinfer.request_words import RequestWords
from clinfer.results import Key, Results
from clinfer.runs import (
    Job,
    Runs,
    callable_or_none,
    error_of,
    milliseconds,
    performing,
    submit,
    workers,
)
from clinfer.synonyms import with_synonyms

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from clinfer.api.profiling import ProfilingInfo
    from clinfer.api.tensor import Tensor
    from clinfer.compiled import CompiledModel
    from clinfer.request_tensors import RequestTensors


@with_synonyms
class InferRequest(RequestWords):
    """One inference at a time, with buffers of its own; requests of a model run side by side.

    Any thread may use it: of several that run it one comes after the other, each with its own
    inputs and results.
    """

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        self._session = model._session()
        self._feed = model._feed
        self._set: dict[int, Any] = {}  # what the user has set, for every run
        self._tensors: RequestTensors | None = None  # those that somebody has asked for
        self._seconds = 0.0  # that the last run took
        self._ran: Sequence[Any] = ()  # the last run's inputs
        self._results: Results | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._runs = Runs()
        self._callback: Callable[[Any], None] | None = None
        self._turn = forks.new_rlock()  # of a run and its callback
        self._performing: Job | None = None  # the background run that computes
        self._calling = 0  # the thread that is in a callback of this request
        self._follow: Callable[[Job], None] | None = None  # in a queue's callback: takes the next
        self.userdata: Any = None
        forks.inherit(self)

    def infer(
        self,
        inputs: Inputs = None,
        share_inputs: bool = False,
        share_outputs: bool = False,
        *,
        decode_strings: bool = True,
        outputs: Inputs = None,
    ) -> Results:
        """Runs and returns the results. Inputs that are set need not be given; without any, the run
        is the last one again, with what is in its arrays now.

        Arrays are read in place, and results are new arrays: to share or not changes nothing. With
        `decode_strings` False text comes as `bytes`. `outputs` are arrays that results are to be
        written to, given as inputs are; those are then the results.

        Raises `InputError` for an unknown, missing or unfit input, `ClinferError` while a run of
        `start_async` is under way.
        """
        given: Mapping[int, Any] = {}
        values = self._again() if inputs is None else self._feed.quick(inputs)
        if values is None:
            given = feeds.given(self.model.inputs, inputs)
            values = self._completed(given, self._kept(again=inputs is None))
            self._feed.remember(values)
        elif self._tensors is not None and inputs is not None:
            given = dict(enumerate(values))
        into = None if outputs is None else feeds.targets(self.model.outputs, outputs)
        self._runs.require_idle()
        with self._turn:
            results = self._run(values, into)
        if given and self._tensors is not None:
            self._tensors.mirror(given)
        return results if decode_strings else results.encoded()

    def start_async(
        self, inputs: Inputs = None, userdata: Any = None, share_inputs: bool = False
    ) -> None:
        """Starts a run in the background; `wait` gives its end, and its error where it fails.

        The inputs are copied now; with `share_inputs` they are read during the run, and must not
        change before its end. `userdata`, where given, is what the callback gets from now on. In
        a callback the next run may be started: it begins when the callback has ended.

        Raises `InputError` and `ShapeError` as `infer`, `ClinferError` while a run is under way.
        """
        given = feeds.given(self.model.inputs, inputs, copied=not share_inputs)
        kept = self.userdata if userdata is None else userdata
        job = self._job(given, kept, share_inputs, again=inputs is None)
        if self._follow is not None and self._calling == get_ident():
            self._follow(job)
            return
        self._runs.begin(job, alone=True)
        try:
            if self._worker is None:
                self._worker = workers(1, "clinfer-request")
            self.userdata = kept
            submit(self._worker, self._work, job)
        except BaseException:
            self._runs.end(job)
            raise

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Waits until no run is under way; False where `timeout_ms` milliseconds were not enough.

        Waits for callbacks and for what they start, too. Raises the first error of the runs since
        the last time, or of their callbacks. In the callback itself, the run is over.
        """
        if self._calling == get_ident():
            self._runs.require_last()
            return True
        return self._runs.wait(None if timeout_ms is None else milliseconds(timeout_ms) / 1000)

    def set_callback(self, callback: Callable[[Any], None], userdata: Any = None) -> None:
        """Calls `callback(userdata)` in the worker's thread after each background run.

        `userdata` stays until `start_async` is given another. None for `callback` calls nothing.
        Raises `InputError` for what cannot be called.
        """
        self._callback = callable_or_none(callback)
        self.userdata = userdata

    def wait_for(self, timeout: float) -> bool:
        """As `wait(timeout)`: whether no run is under way after so many milliseconds."""
        return self.wait(timeout)

    def cancel(self) -> None:
        """Gives up the runs under way: they end without results, and `wait` raises an error.

        One that computes ends where Ctrl-C would end it: between its launches, host steps and the
        steps of loops, and with the player within a launch.
        """
        self._runs.cancel()
        job = self._performing
        if job is not None:
            job.is_cancelled = True

    # -- tensors -------------------------------------------------------------------------------

    def set_tensor(self, key: Key, value: Any) -> None:
        """Sets an input by name, index or port for all runs; checked at once as `infer` does.

        An array is not copied: `infer` reads what is in it then, `start_async` copies that. A
        `Tensor` is the one that `get_tensor` gives from then on. For an output, a `Tensor` that
        runs write their result to. Both may be buffers of OpenCL (`clinfer.remote`). Raises
        `InputError` for what does not fit.
        """
        kind, index = self._place(key if isinstance(key, (str, Port)) else self.model.input(key))
        if kind == "output":
            self._asked().set_output(index, value)
        elif hasattr(value, "int_ptr") or hasattr(value, "base_data"):
            self._set[index] = feeds.checked(self.model.inputs[index], value)
            if self._tensors is not None:
                self._tensors.forget_input(index)
        elif hasattr(value, "element_type"):
            self._asked().set_input(index, value)
            self._set.pop(index, None)
        else:
            array = feeds.checked(self.model.inputs[index], value)
            if self._tensors is not None:
                self._tensors.forget_input(index)
            self._set[index] = array

    def get_tensor(self, key: Key) -> Tensor:
        """The tensor of an input or output, by name or port; by number of an output.

        An input's is what runs read where they are given nothing else: as it was set, else as the
        last run had it. An output's gets a copy of each run's result. Tensors keep their memory:
        what is to be kept over the next run is to be copied, or taken from `results`.
        """
        kind, index = self._place(key)
        if kind == "input":
            return self._asked().input(index, self._set, self._ran)
        result = self._results if self._calling == get_ident() or not self._ran else self.results
        return self._asked().output(index, None if result is None else result[index])

    # -- what a run was like -------------------------------------------------------------------

    @property
    def latency(self) -> float:
        """Milliseconds that the last run took, for which it waits; 0.0 before the first."""
        if self._calling != get_ident():
            self.wait()
        return self._seconds * 1e3

    @property
    def profiling_info(self) -> list[ProfilingInfo]:
        """The steps of the last run; without the property PERF_COUNT they have no times."""
        from clinfer.api.profiling import measured, unmeasured

        if self._calling != get_ident():
            self.wait()
        steps = self._session.profile
        return measured(steps) if steps else unmeasured(self.model._plans)

    @property
    def results(self) -> Results:
        """The last run's results, for which it waits; in a callback those of the run it is of.

        Raises the run's error, and `ClinferError` where there are no results.
        """
        if self._calling != get_ident():
            self.wait()
        found = self._results
        if found is None:
            raise ClinferError(
                "the request has not run yet, or its last run has failed: call infer or start_async"
            )
        return found

    def after_fork(self) -> None:
        """In a forked child: the worker is not there, and what it was doing never ends."""
        self._worker = None
        self._runs.after_fork()
        if self._calling != get_ident():
            self._calling, self._follow = 0, None

    def __reduce__(self) -> NoReturn:
        raise not_pickled("request", "call create_infer_request()")

    # -- for the queue -----------------------------------------------------------------------

    def _job(self, given: dict[int, Any], userdata: Any, share: bool, again: bool = False) -> Job:
        """A run that is to begin later. Raises what can be seen of its inputs now."""
        kept = self._kept(again)
        lacking = {index: value for index, value in kept.items() if index not in given}
        if not share:
            lacking = {index: own(value) for index, value in lacking.items()}
        values = self._completed(given, lacking)
        self._session.check(values)
        if self._tensors is not None:
            self._tensors.mirror(given)
        return Job(values, userdata)

    def _perform(
        self,
        job: Job,
        call: Callable[[Any], None] | None,
        follow: Callable[[Job], None] | None = None,
    ) -> None:
        """A background run and its callback, which finds the run's results.

        `follow` takes the runs that the callback starts, instead of the request's own worker.
        """
        with self._turn:
            self._performing = job
            try:
                job.require_wanted()
                with performing(job):
                    self._run(job.values)
                if job.is_cancelled:
                    self._results = None
                    job.require_wanted()
            finally:
                self._performing = None
                self._runs.computed(job)
            if call is None:
                return
            self._calling, self._follow = get_ident(), follow
            try:
                call(job.userdata)
            finally:
                self._calling, self._follow = 0, None

    # -- private -----------------------------------------------------------------------------

    def _completed(self, given: dict[int, Any], lacking: dict[int, Any]) -> list[Any]:
        return feeds.completed(self.model.inputs, {**lacking, **given} if lacking else given)

    def _again(self) -> list[Any] | None:
        """What a run reads that is given nothing, where that is like the last run's and at hand."""
        kept = list(self._ran) or [None] * len(self.model.inputs)
        for index, value in self._set.items():
            kept[index] = value
        if self._tensors is not None:
            self._tensors.put_into(kept)
        return self._feed.quick(kept)

    def _kept(self, again: bool = False) -> dict[int, Any]:
        """What runs read where they are given nothing else; `again`: as the last one did."""
        if self._tensors is None and not again:
            return self._set
        ran = dict(enumerate(self._ran)) if again else {}
        asked = {} if self._tensors is None else self._tensors.values()
        return {**ran, **self._set, **asked}

    def _asked(self) -> RequestTensors:
        if self._tensors is None:
            from clinfer.request_tensors import RequestTensors

            self._tensors = RequestTensors(self.model.inputs, self.model.outputs)
        return self._tensors

    def _place(self, key: Key) -> tuple[str, int]:
        """Whether a key means an input or an output, and which."""
        inputs, outputs = self.model.inputs, self.model.outputs
        if isinstance(key, Port):
            ports = inputs if key.kind == "input" else outputs
            return key.kind, index_of(ports, key, key.kind)
        if isinstance(key, str):
            both = [*inputs, *outputs]
            place = index_of(both, key, "input or output")
            return both[place].kind, place if place < len(inputs) else place - len(inputs)
        return "output", index_of(outputs, key, "output")

    def _run(self, values: Sequence[Any], into: dict[int, Any] | None = None) -> Results:
        self._results = None  # those of an earlier run are no answer to this one
        self._ran = values
        began = perf_counter()
        places = into if self._tensors is None else self._tensors.targets(into)
        self._results = results = self.model._run(self._session, values, places)
        self._seconds = perf_counter() - began
        if into:
            results.deliver(into)
        if self._tensors is not None:
            self._tensors.deliver(results.to_tuple())
        return results

    def _work(self, job: Job) -> None:
        if job in self._runs:
            self._runs.end(job, error_of(partial(self._perform, job, self._callback)))


def not_pickled(what: str, instead: str) -> ClinferError:
    """The error for what belongs to its process."""
    return ClinferError(
        f"a {what} belongs to its process and is not pickled: send the compiled model, and "
        f"{instead} where it arrives"
    )
