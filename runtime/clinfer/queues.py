"""The queue that runs several requests side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from operator import index
from threading import Condition, get_ident
from typing import TYPE_CHECKING, Any, NoReturn

from clinfer import feeds, forks, properties
from clinfer.errors import ClinferError, InputError
from clinfer.feeds import Inputs
from clinfer.inference import InferRequest, not_pickled
from clinfer.runs import Job, Runs, callable_or_none, error_of, submit, workers

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel


_MOST = 4096  # each has a thread and buffers of its own


class _Idle:
    """Numbers of the requests that have nothing to do, the longest idle first."""

    def __init__(self, count: int) -> None:
        self._numbers = deque(range(count))
        self._changed = Condition()

    def give(self, number: int) -> None:
        with self._changed:
            self._numbers.append(number)
            self._changed.notify()

    def take(self, wait: bool = True) -> int | None:
        """One of them; None where there is none and it does not wait."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._numbers)
            return self._numbers.popleft() if self._numbers else None

    def next(self) -> int:
        """The one that `take` gives next, for which it waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._numbers)
            self._changed.notify()  # it is still there, for another that waits
            return self._numbers[0]

    def __bool__(self) -> bool:
        return bool(self._numbers)


class AsyncInferQueue:
    """Requests that run side by side: `start_async` takes the next idle one, `wait_all` ends.

    Any thread may use it. What fails, a run or a callback, costs no request.
    """

    def __init__(self, model: CompiledModel, jobs: int = 0) -> None:
        if not hasattr(model, "create_infer_request"):
            raise InputError(f"a queue is of a compiled model; found {type(model).__name__}")
        try:
            jobs = index(jobs)
        except TypeError:
            message = f"a queue's number of requests is an integer; found {jobs!r}"
            raise InputError(message) from None
        if not 0 <= jobs <= _MOST:
            raise InputError(
                f"a queue has 1 to {_MOST} requests, or 0 for the model's own; found {jobs}"
            )
        count = int(jobs or model.get_property(properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS))
        self._model = model
        self._requests = [model.create_infer_request() for _ in range(count)]
        self._callback: Callable[[InferRequest, Any], None] | None = None
        self._calling: dict[int, InferRequest] = {}  # by the threads that are in a callback
        self._runs = Runs()
        self._start()
        forks.inherit(self)

    def set_callback(self, callback: Callable[[InferRequest, Any], None]) -> None:
        """Calls `callback(request, userdata)` after each run, in the request's thread.

        None for `callback` calls nothing. Raises `InputError` for what cannot be called.
        """
        self._callback = callable_or_none(callback)

    def start_async(
        self, inputs: Inputs = None, userdata: Any = None, share_inputs: bool = False
    ) -> None:
        """Starts a run on the next idle request; waits for one where all are busy.

        Inputs and errors are those of `InferRequest.start_async`, and come at once. In a callback
        it never waits: where no request is idle, the callback's own takes the run, afterwards.
        """
        given = feeds.given(self._model.inputs, inputs, copied=not share_inputs)
        calling = self._calling.get(get_ident())
        request = self._requests[self._take()] if calling is None else self._idle_or(calling)
        job = None
        try:
            job = request._job(given, userdata, share_inputs)
            if request is calling and request._follow is not None:
                request._follow(job)
                return
            self._runs.begin(job)
            submit(self._workers, self._work, request, job)
        except BaseException:
            if job is not None:
                self._runs.end(job)
            if request is not calling:
                self._idle.give(self._requests.index(request))
            raise

    def wait_all(self) -> None:
        """Waits for all runs, callbacks and what they start; raises the first error since then."""
        if get_ident() in self._calling:
            raise ClinferError("wait_all in a callback would wait for the callback itself")
        self._runs.wait(None)

    def is_ready(self) -> bool:
        """Whether a request is idle, so that `start_async` would not wait."""
        return bool(self._idle)

    def get_idle_request_id(self) -> int:
        """The number of the request that the next `start_async` takes; waits for one."""
        if get_ident() in self._calling and not self._idle:
            raise ClinferError("no request is idle, and a callback cannot wait for one")
        return self._idle.next()

    @property
    def userdata(self) -> list[Any]:
        """What the requests were last given as `userdata`."""
        return [request.userdata for request in self._requests]

    def after_fork(self) -> None:
        """In a forked child: no worker is there, so all requests are idle."""
        self._calling = {k: v for k, v in self._calling.items() if k == get_ident()}
        self._runs.after_fork()
        self._start()

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int) -> InferRequest:
        if not isinstance(index, int) or not -len(self) <= index < len(self):
            raise InputError(f"the queue has {len(self)} requests, no number {index!r}")
        return self._requests[index]

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(self._requests)

    def __reduce__(self) -> NoReturn:
        raise not_pickled("queue", "make a queue")

    def _start(self) -> None:
        self._workers = workers(len(self._requests), "clinfer-queue")
        self._idle = _Idle(len(self._requests))

    def _idle_or(self, calling: InferRequest) -> InferRequest:
        number = self._idle.take(wait=False)
        return calling if number is None else self._requests[number]

    def _take(self) -> int:
        number = self._idle.take()
        assert number is not None
        return number

    def _work(self, request: InferRequest, job: Job) -> None:
        if job not in self._runs:
            return
        jobs = deque([job])

        def follow(next_job: Job) -> None:
            self._runs.begin(next_job)
            jobs.append(next_job)

        while jobs:
            job = jobs.popleft()
            error = error_of(partial(self._perform, request, job, follow))
            if not jobs:
                self._idle.give(self._requests.index(request))
            self._runs.end(job, error)

    def _perform(self, request: InferRequest, job: Job, follow: Callable[[Job], None]) -> None:
        callback = self._callback
        request.userdata = job.userdata

        def call(userdata: Any) -> None:
            assert callback is not None
            self._calling[get_ident()] = request
            request.userdata = userdata
            try:
                callback(request, userdata)
            finally:
                del self._calling[get_ident()]

        request._perform(job, None if callback is None else call, follow)
