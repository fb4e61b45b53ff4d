"""Requests: one inference at a time each, and the queue that runs several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

from clinfer import feeds, properties
from clinfer.errors import ClinferError, InputError
from clinfer.feeds import Inputs
from clinfer.ports import Port

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from clinfer.compiled import CompiledModel

Key = str | int | Port


class Results(Mapping[Key, Any]):
    """A request's results, found by output, by name or by index; iterates over the outputs."""

    def __init__(self, ports: Sequence[Port], values: Sequence[Any]) -> None:
        self._ports = tuple(ports)
        self._values = list(values)

    def __getitem__(self, key: Key) -> Any:
        return self._values[feeds.index_of(self._ports, key, "output")]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._ports)

    def __len__(self) -> int:
        return len(self._ports)

    def names(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(port.name for port in self._ports)

    def to_dict(self) -> dict[str, Any]:
        """The results by name."""
        return dict(zip(self.names(), self._values, strict=True))

    def to_tuple(self) -> tuple[Any, ...]:
        """The results in the outputs' order."""
        return tuple(self._values)

    def __repr__(self) -> str:
        return f"Results({', '.join(self.names())})"


class InferRequest:
    """One inference at a time, with buffers of its own; requests of a model run side by side."""

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        self._session = model._session()
        self._inputs: dict[int, Any] = {}
        self._results: Results | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[Results] | None = None
        self._callback: Callable[[Any], None] | None = None
        self._turn = Lock()
        self.userdata: Any = None

    def infer(self, inputs: Inputs = None) -> Results:
        """Runs and returns the results. Inputs set before stay where none is given.

        Of several threads that call it one runs after the other.
        """
        with self._turn:
            self._require_idle()
            self._take(inputs)
            return self._run()

    def start_async(self, inputs: Inputs = None, userdata: Any = None) -> None:
        """Starts a run in the background; `wait` gives its end, and its error where it fails."""
        self._require_idle()
        self._take(inputs)
        if self._worker is None:
            from concurrent.futures import ThreadPoolExecutor

            self._worker = ThreadPoolExecutor(1, "clinfer-request")
        self.userdata = userdata
        self._pending = self._worker.submit(self._run_and_call)

    def wait(self, timeout_ms: float | None = None) -> bool:
        """Waits for the run started last; False where `timeout_ms` milliseconds were not enough."""
        if self._pending is None:
            return True
        try:
            self._pending.result(None if timeout_ms is None else timeout_ms / 1000)
        except TimeoutError:
            return False
        except BaseException as error:
            if type(error).__name__ == "TimeoutError" and not self._pending.done():
                return False
            self._pending = None
            raise
        self._pending = None
        return True

    def set_callback(self, callback: Callable[[Any], None], userdata: Any = None) -> None:
        """Calls `callback(userdata)` in the worker's thread after each background run."""
        self._callback = callback
        self.userdata = userdata

    def set_tensor(self, key: Key, value: Any) -> None:
        """Sets an input by name, index or port; checked at once as `InputError` says."""
        index = feeds.index_of(self.model.inputs, key, "input")
        self._inputs[index] = feeds.checked(self.model.inputs[index], value)

    def get_tensor(self, key: Key) -> Any:
        """An output of the last run, or an input that has been set."""
        for index, port in enumerate(self.model.inputs):
            if key in (port, port.name) and index in self._inputs:
                return self._inputs[index]
        return self.results[key]

    @property
    def results(self) -> Results:
        """The last run's results. Raises `ClinferError` before the first run."""
        self.wait()
        if self._results is None:
            raise ClinferError("the request has not run yet: call infer or start_async first")
        return self._results

    def _take(self, inputs: Inputs) -> None:
        for key, value in feeds.pairs(self.model.inputs, inputs):
            self.set_tensor(key, value)
        feeds.require_all(self.model.inputs, self._inputs)

    def _run(self) -> Results:
        values = [self._inputs[i] for i in range(len(self.model.inputs))]
        results = Results(self.model.outputs, self._session.run(values))
        self._results = results
        self.model._profile = self._session.profile
        return results

    def _run_and_call(self) -> Results:
        results = self._run()
        if self._callback is not None:
            self._callback(self.userdata)
        return results

    def _require_idle(self) -> None:
        if self._pending is not None and not self._pending.done():
            raise ClinferError("the request is still running: call wait() first")
        self._pending = None


class AsyncInferQueue:
    """Requests that run side by side: `start_async` takes the next idle one, `wait_all` ends."""

    def __init__(self, model: CompiledModel, jobs: int = 0) -> None:
        count = jobs or model.get_property(properties.OPTIMAL_NUMBER_OF_INFER_REQUESTS)
        if count < 1:
            raise InputError(
                f"a queue has 1 request or more, or 0 for the model's own; found {jobs}"
            )
        self._requests = [model.create_infer_request() for _ in range(count)]
        self._idle: SimpleQueue[InferRequest] = SimpleQueue()
        from concurrent.futures import ThreadPoolExecutor

        self._workers = ThreadPoolExecutor(count, "clinfer-queue")
        self._futures: list[Future[None]] = []
        self._callback: Callable[[InferRequest, Any], None] | None = None
        for request in self._requests:
            self._idle.put(request)

    def set_callback(self, callback: Callable[[InferRequest, Any], None]) -> None:
        """Calls `callback(request, userdata)` after each run, in the request's thread."""
        self._callback = callback

    def start_async(self, inputs: Inputs = None, userdata: Any = None) -> None:
        """Starts a run on the next idle request; waits for one where all are busy."""
        request = self._idle.get()
        self._futures = [f for f in self._futures if not f.done() or f.exception()]
        self._futures.append(self._workers.submit(self._run, request, inputs, userdata))

    def wait_all(self) -> None:
        """Waits for all runs; raises the first error there was."""
        futures, self._futures = self._futures, []
        for future in futures:
            future.result()

    def _run(self, request: InferRequest, inputs: Inputs, userdata: Any) -> None:
        try:
            request.infer(inputs)
            if self._callback is not None:
                self._callback(request, userdata)
        finally:
            self._idle.put(request)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(self._requests)
