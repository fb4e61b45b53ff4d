"""What calls of OpenCL are made to fail in: each a part of a model's life, on one of the devices.

`sweep` makes one call of an operation fail after the other, and says what then went wrong.
"""

from __future__ import annotations

import faulthandler
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np

from clinfer import AsyncInferQueue, Core
from clinfer.device import discover, workers
from clinfer.errors import ClinferError
from driver_faults import Driver, Fault, Held, Point, codes
from shared_builds import Binaries, shared

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits.onnx"
DEVICES = ("CPU", "CPU queue", "GPU", "GPU with memory")
"""The CPU with its player and without, and PoCL presented as a GPU, also as one that has memory of
its own, to which everything is copied."""

_SECONDS_HUNG = 600.0
_SECONDS_TO_END = 60.0  # for threads whose work is done
_LONGEST_MESSAGE = 3000
_FRAMES_OF_A_PLACE = 3

Results = list[Any]


@contextmanager
def own_memory() -> Iterator[None]:
    """PoCL as a device that has memory of its own."""
    with (
        mock.patch.object(discover.Device, "has_own_memory", True),
        mock.patch.object(discover.DeviceInfo, "shares_host_memory", False),
        mock.patch.object(discover.DeviceInfo, "plays", False),
    ):
        yield


class Setting:
    """A model on a device, with inputs of several shapes and the right answers.

    Programs are built once: what the build processes gave is given again, so that a sweep can
    compile a model a thousand times.
    """

    def __init__(self, device: str, model: Any, inputs: Sequence[list[Any]]) -> None:
        self.device = device
        self.name = device.split()[0]
        self.plays = device == "CPU"
        self.model = model
        self.inputs = inputs
        self.core = Core()
        self._binaries: Binaries = {}
        with self.as_device():
            compiled = self.compile()
            self.expected = [list(compiled(x).to_tuple()) for x in inputs]

    @contextmanager
    def as_device(self) -> Iterator[None]:
        """The platform as that device, and each program built once."""
        with ExitStack() as stack:
            patch = mock.patch
            stack.enter_context(patch.dict("os.environ", {"CLINFER_GPU_PLATFORM": "Portable"}))
            stack.enter_context(patch.dict("os.environ", {"CLINFER_CPU_PLATFORM": "Portable"}))
            stack.enter_context(shared(self._binaries))
            if self.device == "GPU with memory":
                stack.enter_context(own_memory())
            if not self.plays:
                plays = "clinfer.plugins.compiler.plays"
                stack.enter_context(patch(plays, lambda *_: False))
            yield

    def compile(self, core: Core | None = None, **config: Any) -> Any:
        return (core or self.core).compile_model(self.model, self.name, config)


class Operation:
    """Part of a model's life; `act` may fail, and works when it is asked again."""

    fault: Fault | None = None
    """What is injected now, or was last."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def begin(self) -> None:
        """Before each `act` that may fail."""

    def act(self) -> list[Results]:
        """The results for each of the inputs."""
        raise NotImplementedError

    def end(self) -> None:
        """Lets go of what it has."""

    def _run(self, call: Callable[[list[Any]], Any]) -> list[Results]:
        return [list(call(x).to_tuple()) for x in self.setting.inputs]


class Opening(Operation):
    """Devices are listed and opened, the model is compiled, runs and is closed."""

    def act(self) -> list[Results]:
        core = Core()
        assert any(name.startswith(self.setting.name) for name in core.available_devices)
        return self._run(self.setting.compile(core))


class Building(Operation):
    """As `Opening`, with no process to build in: each program is built here."""

    def act(self) -> list[Results]:
        refused = OSError("there is no process to be had")
        with mock.patch.object(workers.Pool, "build", side_effect=refused):
            return self._run(self.setting.compile())


class Storing(Operation):
    """Compiles into an empty cache, and, asked again, from what that has got."""

    def begin(self) -> None:
        self._folder = TemporaryDirectory(prefix="clinfer-faults-")

    def act(self) -> list[Results]:
        return self._run(self.setting.compile(CACHE_DIR=self._folder.name))

    def end(self) -> None:
        self._folder.cleanup()


class Warm(Operation):
    """Compiles from a full cache. Only a binary that the driver refuses may be made again."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._folder = TemporaryDirectory(prefix="clinfer-faults-")
        setting.compile(CACHE_DIR=self._folder.name)

    def act(self) -> list[Results]:
        model = self.setting.compile(CACHE_DIR=self._folder.name)
        if model.programs_built and not (self.fault and self.fault.refuses_binary):
            raise AssertionError(f"{model.programs_built} programs of the cache were built again")
        return self._run(model)


class Running(Operation):
    """A request of a compiled model meets shapes that are new to it, and known ones again."""

    config: dict[str, Any] = {}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._model = setting.compile(**self.config)
        self._request: Any = None

    def act(self) -> list[Results]:
        if self._request is None:
            self._request = self._model.create_infer_request()
        first = self._run(self._request.infer)
        again = self._run(self._request.infer)
        same = all(_equal(x, y) for x, y in zip(first, again, strict=True))
        assert same, "the second run of the same request gives other results"
        return again

    def end(self) -> None:
        self._request = None


class Profiling(Running):
    """As `Running`, each step timed."""

    config = {"PERF_COUNT": True}

    def act(self) -> list[Results]:
        results = super().act()
        assert self._model.profiling_info, "there is no profile"
        return results


class Queueing(Running):
    """Two requests side by side, in a queue."""

    def act(self) -> list[Results]:
        found: list[Any] = [None] * len(self.setting.inputs)
        queue = AsyncInferQueue(self._model, 2)

        def keep(request: Any, index: int) -> None:
            found[index] = list(request.results.to_tuple())

        queue.set_callback(keep)
        for index, inputs in enumerate(self.setting.inputs):
            queue.start_async(inputs, index)
        queue.wait_all()
        return found


class Exchanging(Operation):
    """The model is exported, and imported."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._model = setting.compile()

    def act(self) -> list[Results]:
        file = BytesIO()
        self._model.export_model(file)
        imported = self.setting.core.import_model(file.getvalue(), self.setting.name)
        return self._run(imported)


def operations(device: str) -> list[type[Operation]]:
    """What there is on that device."""
    found: list[type[Operation]] = [Running, Profiling, Queueing, Warm, Storing, Opening]
    return found if device.startswith("GPU") else [*found, Exchanging]


class Sweep:
    """One operation, with its calls made to fail in turn."""

    def __init__(self, driver: Driver, operation: Operation) -> None:
        self._driver = driver
        self._operation = operation
        self.faults = 0
        self.moved = 0  # faults that met another function than the one recorded there
        with _watch():
            self._checked("without a fault")  # what a process makes once is made now
            with driver.recording() as self.points:
                said = self._checked("without a fault")
            assert not said, said
            self._base = driver.held()

    def run(self, faults: Iterator[Fault], say: Callable[[str], None]) -> list[str]:
        """What went wrong with any of the faults, told as it is found."""
        wrong: list[str] = []
        for fault in faults:
            point = self.points[fault.at]
            found = self._inject(fault)
            self.faults += 1
            self.moved += self._driver.hit != point.function
            if found:
                wrong.append(f"{fault} {point}: {found}")
                say(wrong[-1])
        return wrong

    def _inject(self, fault: Fault) -> str:
        """What is wrong with what the operation does about a fault; '' for nothing."""
        with _watch():
            self._operation.fault = fault
            self._operation.begin()
            said = self._fail(fault)
            said = said or self._checked("afterwards", begin=False)
            return said or self._leaks()

    def _fail(self, fault: Fault) -> str:
        try:
            with self._driver.failing(fault):
                results = self._operation.act()
        except ClinferError as error:
            said = f"{error}"
            return "" if 0 < len(said) < _LONGEST_MESSAGE else f"a message of {len(said)} letters"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return self._difference(results, "in spite of it")

    def _checked(self, when: str, begin: bool = True) -> str:
        if begin:
            self._operation.begin()
        try:
            return self._difference(self._operation.act(), when)
        except Exception as error:
            return f"{when}: {type(error).__name__}: {error}"
        finally:
            self._operation.end()

    def _difference(self, results: list[Results], when: str) -> str:
        expected = self._operation.setting.expected
        for found, wanted in zip(results, expected, strict=True):
            if not _equal(found, wanted):
                return f"wrong results {when}"
        return ""

    def _leaks(self) -> str:
        end = time.monotonic() + _SECONDS_TO_END
        while True:
            held = self._driver.held()
            if _within(held, self._base):
                return ""
            if time.monotonic() > end:
                return f"held before {self._base}, and afterwards {held}"
            time.sleep(0.01)


@contextmanager
def _watch() -> Iterator[None]:
    """Ends the process, with what all threads are at, where a block hangs.

    Garbage is collected before it and at its end only, so that calls come in the same order.
    """
    gc.collect()
    gc.disable()
    faulthandler.dump_traceback_later(_SECONDS_HUNG, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        gc.enable()


def _within(held: Held, base: Held) -> bool:
    more = [kind for kind, count in held.handles.items() if count > base.handles.get(kind, 0)]
    return not more and held.descriptors <= base.descriptors and held.threads <= base.threads


def of_each_place(points: Sequence[Point], seen: set[Any]) -> Iterator[Fault]:
    """A fault for the first call of each function from each place that has not been `seen`.

    Codes, and whether the fault lasts, come in turn.
    """
    for number, point in enumerate(points):
        place = (point.function, point.site[:_FRAMES_OF_A_PLACE])
        if place not in seen:
            seen.add(place)
            yield _in_turn(points, number, len(seen))


def of_every_call(points: Sequence[Point]) -> Iterator[Fault]:
    """A fault for each call. Codes, and whether the fault lasts, come in turn."""
    for number in range(len(points)):
        yield _in_turn(points, number, number)


def with_every_code(points: Sequence[Point]) -> Iterator[Fault]:
    """All faults of each call."""
    for number, point in enumerate(points):
        for code in codes(point.function):
            yield Fault(number, code)
            yield Fault(number, code, lasts=True)


def _in_turn(points: Sequence[Point], number: int, turn: int) -> Fault:
    choice = codes(points[number].function)
    return Fault(number, choice[turn % len(choice)], lasts=turn // len(choice) % 2 == 1)


def _equal(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return len(found) == len(wanted) and all(
        x is not None and np.allclose(x, y, rtol=1e-4, atol=1e-5)
        for x, y in zip(found, wanted, strict=True)
    )


def digits(device: str) -> Setting:
    """The model in the box, with batches that wake helpers and one that does not."""
    images = np.load(DIGITS.with_suffix(".npz"))["image"]
    return Setting(device, DIGITS, [[images], [images[:3]]])
