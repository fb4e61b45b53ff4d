"""ONNX's backend test cases, and running one of them through clinfer (see conformance.py)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Outcome:
    """What became of a case. `status`: passed, wrong (results differ), error, timeout, crashed.

    `operators` are those in the case's model, `host` those of its steps that ran on the host.
    """

    name: str
    kind: str
    status: str
    operators: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    message: str = ""

    @property
    def on_device(self) -> bool:
        """Passed without a host step."""
        return self.status == "passed" and not self.host


class Cases:
    """The cases of the installed onnx by name."""

    def __init__(self) -> None:
        from onnx.backend.test.loader import load_model_tests

        self._cases = {c.name: c for kind in KINDS for c in load_model_tests(kind=kind)}
        self.kinds: dict[str, str] = {name: c.kind for name, c in self._cases.items()}

    def model(self, name: str) -> Any:
        """The case's model: a ModelProto or a path."""
        case = self._cases[name]
        return case.model if case.model is not None else Path(case.model_dir) / "model.onnx"

    def operators(self, name: str) -> tuple[str, ...]:
        """The operators in the case's model."""
        import onnx

        model = self.model(name)
        proto = onnx.load(model) if isinstance(model, Path) else model
        kinds = {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in proto.graph.node}
        return tuple(sorted(kinds))

    def sample(self, size: int, without: tuple[str, ...] = ()) -> list[str]:
        """So many node cases, chosen by digests of names: of each operator one first, then any."""
        nodes = [
            name
            for name, kind in self.kinds.items()
            if kind == "node" and not name.endswith("_expanded") and not name.startswith(without)
        ]
        nodes.sort(key=lambda name: sha256(name.encode()).digest())
        first: list[str] = []
        met: set[str] = set()
        for name in nodes:
            operators = self.operators(name)
            if not met.issuperset(operators):
                first.append(name)
                met.update(operators)
        rest = set(nodes) - {*first}
        return [*first, *(name for name in nodes if name in rest)][:size]

    def data(self, name: str) -> Iterator[tuple[list[Any], list[Any]]]:
        """Inputs and expected outputs of each of the case's data sets."""
        case = self._cases[name]
        if case.data_sets is not None:
            for inputs, outputs in case.data_sets:
                yield [_plain(x) for x in inputs], [_plain(x) for x in outputs]
            return
        import onnx

        graph = onnx.load(self.model(name)).graph
        for folder in sorted(Path(case.model_dir).glob("test_data_set*")):
            yield _stored(folder, "input", graph.input), _stored(folder, "output", graph.output)

    def compare(self, name: str, expected: Sequence[Any], results: Sequence[Any]) -> None:
        """Raises `AssertionError` where results are outside the tolerances that onnx sets."""
        from onnx.backend.test.runner import Runner

        case = self._cases[name]
        assert len(expected) == len(results), f"{len(expected)} outputs, found {len(results)}"
        for wanted, found in zip(expected, results, strict=True):
            if isinstance(wanted, list):
                assert isinstance(found, list), f"a sequence, found {type(found).__name__}"
                self.compare(name, wanted, found)
            else:
                Runner.assert_similar_outputs([wanted], [found], case.rtol, case.atol)


def _plain(value: Any) -> Any:
    """An array instead of a NumPy scalar or an encoded tensor."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _stored(folder: Path, stem: str, infos: Sequence[Any]) -> list[Any]:
    """The values in a case's files 'input_0.pb' and so on."""
    from onnx.backend.test.runner import Runner

    values: list[Any] = []
    for index in range(len(list(folder.glob(f"{stem}_*.pb")))):
        Runner._load_proto(Runner, str(folder / f"{stem}_{index}.pb"), values, infos[index].type)
    return [_plain(v) for v in values]


class Runnable(Protocol):
    """A model ready to run; `host` names the operators of its host steps."""

    host: tuple[str, ...]

    def run(self, inputs: list[Any]) -> list[Any]:
        """The outputs in order."""


class HostModel:
    """The model with every node a host step: no device is needed."""

    def __init__(self, model: Any) -> None:
        from clinfer.graph.control import HostGraph
        from clinfer.graph.reader import read
        from clinfer.graph.reference import host_step

        graph = read(model).graph()
        self.host = tuple(sorted({node.kind for node in graph.nodes}))
        self._graph = HostGraph(graph, host_step)

    def run(self, inputs: list[Any]) -> list[Any]:
        return self._graph.run(inputs)


class DeviceModel:
    """The model compiled through clinfer's backend for onnx."""

    def __init__(self, model: Any, device: str, cache: str = "") -> None:
        from clinfer import backend

        self._prepared = backend.prepare(model, device, CACHE_DIR=cache)
        compiled = self._prepared.compiled
        self.built = compiled.programs_built
        self.host = tuple(sorted({str(step.op["kind"]) for step in compiled.host_steps}))

    def run(self, inputs: list[Any]) -> list[Any]:
        return list(self._prepared.run(inputs))


class CachedModel:
    """The model compiled into an empty cache, and again from there: bits must be the same."""

    def __init__(self, model: Any, device: str) -> None:
        with TemporaryDirectory(prefix="clinfer-conformance-") as cache:
            self._first = DeviceModel(model, device, cache)
            self._second = DeviceModel(model, device, cache)
        assert not self._second.built, f"{self._second.built} programs built from a warm cache"
        self.host = self._first.host

    def run(self, inputs: list[Any]) -> list[Any]:
        first = self._first.run(inputs)
        second = self._second.run(inputs)
        assert bits(first) == bits(second), "the cached model gives other bits"
        return second


def bits(values: Any) -> Any:
    """Values in a form that is equal exactly where dtypes, shapes and bits are."""
    import numpy as np

    if isinstance(values, (list, tuple)):
        return [bits(value) for value in values]
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.dtype.str, values.shape, values.tobytes()
    return repr(values)


def run_case(cases: Cases, name: str, device: str, cached: bool = False) -> Outcome:
    """Compiles and runs one case, and compares its results; `cached`: through a cache as well."""
    kind, operators = cases.kinds[name], cases.operators(name)
    host: tuple[str, ...] = ()
    try:
        source = cases.model(name)
        model = _runnable(source, device, cached)
        host = model.host
        for inputs, expected in cases.data(name):
            cases.compare(name, expected, model.run(inputs))
    except AssertionError as error:
        return Outcome(name, kind, "wrong", operators, host, _line(error))
    except Exception as error:  # a case that fails must not end the run
        return Outcome(name, kind, "error", operators, host, _line(error))
    return Outcome(name, kind, "passed", operators, host)


def _runnable(source: Any, device: str, cached: bool) -> Runnable:
    if device == "HOST":
        return HostModel(source)
    return CachedModel(source, device) if cached else DeviceModel(source, device)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def serve(pipe: Connection, device: str, cached: bool = False) -> None:
    """A worker process: says None when ready, then answers names with outcomes until None comes."""
    warnings.simplefilter("ignore")
    cases = Cases()
    pipe.send(None)
    while (name := pipe.recv()) is not None:
        pipe.send(run_case(cases, name, device, cached))
