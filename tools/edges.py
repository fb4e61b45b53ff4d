"""Operators at their edges: ONNX's backend cases with every dimension known only in the run.

    python tools/edges.py --device CPU                 # the table, and what is at fault
    python tools/edges.py --device GPU --match gather  # GPU schedules, some cases

    python tools/edges.py --device PLAN                # what plans refuse and infer: no device

Each case's model is compiled once with a name for every dimension of its inputs. It runs with the
case's own inputs, then with one size of one input changed: 0, 1, one less and one more; then with
special values: NaN, infinities, -0.0, the least and greatest numbers. Results are compared with
ONNX Runtime's: where it runs, the values must be equal; where it refuses, clinfer must raise one of
its errors or give what onnx's evaluator gives. Last, each input in turn gets another element type:
what onnx's type inference refuses must not compile. Tensors lie between guard bytes.
`EXPECTED` has the differences that are meant. CLINFER_GPU_PLATFORM=Portable makes a GPU of PoCL.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import re
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import md5
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from conformance import Pool
from conformance_cases import Cases, Outcome

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

# Results that are random, or that this machine cannot make.
SKIPPED = ("test_image_decoder", "test_gradient", "test_bernoulli", "test_training_dropout")


# Differences that are meant: operators (none: any), a pattern of 'variant: difference', the reason.
EXPECTED = (
    ("GatherND", "batch|data and of indices|length of an index", "ONNX Runtime reads elsewhere"),
    ("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss", ": refused", "it broadcasts at random"),
    ("NonMaxSuppression", ": refused: .*a scalar", "the specification: one element"),
    ("SplitToSequence Squeeze", r"-> \[0\]: not ONNX", "it takes an empty input for none"),
    ("Concat", r"-> .*\b0\b.*refused: .*sizes of axis", "it leaves out inputs without elements"),
    ("DynamicQuantizeLinear", "values", "the specification: the scale of zeros is 0"),
    (
        "ai.onnx.ml.LabelEncoder ai.onnx.ml.TreeEnsemble",
        "-> [A-Z0-9]+: not refused",
        "keys and thresholds are compared with inputs of any numbers",
    ),
    ("QLinearConv ConvInteger", "refused: .*one tap", "as Conv refuses it"),
    ("Clip", "with infinities", "its bounds are finite"),
    ("ScatterElements ScatterND", "with NaN", "a NaN reaches every maximum and minimum"),
    (
        "ReduceMax ReduceMin ArgMax ArgMin Hardmax MaxPool GlobalMaxPool",
        "with NaN",
        "what it gives depends on where the NaN is",
    ),
    (
        "LayerNormalization RMSNormalization InstanceNormalization GroupNormalization "
        "LpNormalization MeanVarianceNormalization",
        "with zeros and limits",
        "squares beyond float32 are infinite: what they are divided by differs",
    ),
    ("ReduceMean", r"-> .*\b0\b.*values", "the mean of nothing is no number"),
    ("Resize Upsample GridSample", "with (NaN|infinities)", "zero times what is not finite"),
    ("DFT STFT", "values: .*infinit|NaN", "transforms mix what is not finite"),
    ("GroupNormalization", r"refused: .*\('(scale|bias)'\)", "the specification: [channels]"),
    (
        "MaxPool LpPool AveragePool",
        r"-> .*\b[01]\b",
        "windows that do not fit: it cuts toward zero",
    ),
    (
        "LRN",
        "with (NaN|infinities|zeros and limits)",
        "its sum runs along the channels: what is not finite stays in it",
    ),
    ("Conv ConvTranspose", "with zeros and limits", "sums beyond float32 depend on their order"),
    ("GlobalAveragePool", "with zeros and limits", "what is left of sums of great numbers"),
    ("LSTM GRU RNN", r"-> \[0,", "of no steps it refuses, ends, or gives what was in memory"),
    ("LSTM GRU RNN", "with (NaN|infinities)", "its activations make numbers of NaN"),
    ("LSTM GRU RNN", "input 2 with zeros and limits", "what is left of sums of great weights"),
)


def one_of_each(cases: Cases) -> list[str]:
    """A case of each operator, in the order of the operators' names; the least digests."""
    found: dict[str, str] = {}
    for name, kind in cases.kinds.items():
        if kind != "node" or "_expanded" in name or name.startswith(SKIPPED):
            continue
        if "float8" in name.lower() or "E8M0" in name:
            continue  # ONNX Runtime has few of these
        operators = cases.operators(name)
        key = operators[0] if len(operators) == 1 else "several"
        found[key] = min(name, found.get(key, name), key=_digest)
    return [found[key] for key in sorted(found)]


def _digest(name: str) -> str:
    return md5(name.encode(), usedforsecurity=False).hexdigest()


def dynamic(model: Any) -> Any:
    """The model with a name of its own for every dimension of its inputs, and none for outputs'."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(onnx.load(model) if isinstance(model, Path) else model)
    constants = {tensor.name for tensor in proto.graph.initializer}
    for info in proto.graph.input:
        if info.name in constants or not info.type.HasField("tensor_type"):
            continue
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.dim_param = f"{info.name}_{axis}"
    for info in proto.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    return proto


def variants(inputs: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The inputs as they are, then with one size or some values of one of them changed."""
    yield "as given", inputs
    for number, array in enumerate(inputs):
        if not isinstance(array, np.ndarray) or array.dtype == object or array.size > 4096:
            continue
        for label, changed in (*resized(array), *special(array)):
            yield f"input {number} {label}", [*inputs[:number], changed, *inputs[number + 1 :]]


def resized(array: Any) -> Iterator[tuple[str, Any]]:
    """The array with one size changed; elements are repeated where there are more."""
    for axis, size in enumerate(array.shape):
        for wanted in sorted({0, 1, size - 1, size + 1} - {size, -1}):
            if wanted and not size:
                continue
            places = np.arange(wanted) % max(size, 1)
            changed = np.ascontiguousarray(np.take(array, places, axis=axis))
            yield f"{list(array.shape)} -> {list(changed.shape)}", changed


def special(array: Any) -> Iterator[tuple[str, Any]]:
    """A float array whose first elements are what arithmetic has rules of its own for."""
    if array.dtype not in (np.float16, np.float32, np.float64) or not array.size:
        return
    info = np.finfo(array.dtype)
    for name, values in (
        ("NaN", (np.nan,)),
        ("infinities", (np.inf, -np.inf)),
        ("zeros and limits", (-0.0, 0.0, info.tiny, info.max, info.min)),
    ):
        changed = array.copy()
        changed.reshape(-1)[: len(values)] = values[: array.size]
        yield f"with {name}", changed


def retyped(proto: Any) -> Iterator[tuple[str, Any]]:
    """The model with another element type of one input, where onnx says that types do not fit."""
    import onnx
    from onnx import TensorProto

    for number, info in enumerate(proto.graph.input):
        if not info.type.HasField("tensor_type"):
            continue
        given = info.type.tensor_type.elem_type
        for other in (TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL):
            changed = onnx.ModelProto()
            changed.CopyFrom(proto)
            changed.graph.input[number].type.tensor_type.elem_type = other
            if other == given:
                continue
            judged = onnx.ModelProto()
            judged.CopyFrom(changed)
            for output in judged.graph.output:
                output.ClearField("type")
            try:
                onnx.shape_inference.infer_shapes(judged, check_type=True, strict_mode=True)
            except Exception:
                types = TensorProto.DataType.Name(given), TensorProto.DataType.Name(other)
                yield f"input {number} {types[0]} -> {types[1]}", changed


KINDS_OF_FAULT = ("not refused", ": refused", "values", "bare", "stray access")


class Child:
    """A forked process that answers with `run`; its end ends the asking with `EOFError`."""

    def __init__(self, run: Callable[[list[Any]], list[Any] | None]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._serve, args=(run, theirs), daemon=True)
        self._process.start()
        theirs.close()
        weakref.finalize(self, self._process.kill)

    def _serve(self, run: Callable[[list[Any]], list[Any] | None], pipe: Connection) -> None:
        faulthandler.disable()
        self._pipe.close()
        with suppress(EOFError):
            while True:
                pipe.send(run(pipe.recv()))
        os._exit(0)

    def ask(self, inputs: list[Any]) -> list[Any] | None:
        self._pipe.send(inputs)
        answer: list[Any] | None = self._pipe.recv()
        return answer


class Peers:
    """ONNX Runtime and onnx's evaluator on one model; None where they refuse."""

    def __init__(self, proto: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._proto = proto
        self._names = [i.name for i in proto.graph.input]
        try:
            self._session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
        except Exception:
            self._session = None
        self._child: Child | None = None

    @property
    def is_there(self) -> bool:
        """Whether ONNX Runtime has the operator at all."""
        return self._session is not None

    def runtime(self, inputs: list[Any]) -> list[Any] | None:
        """ONNX Runtime's results, from a process of its own: some inputs end it."""
        if self._child is None:
            self._child = Child(self._run)
        try:
            return self._child.ask(inputs)
        except (EOFError, OSError):
            self._child = None
            return None

    def _run(self, inputs: list[Any]) -> list[Any] | None:
        try:
            return list(self._session.run(None, dict(zip(self._names, inputs, strict=False))))
        except Exception:
            return None

    def evaluator(self, inputs: list[Any]) -> list[Any] | None:
        from onnx.reference import ReferenceEvaluator

        try:
            run = ReferenceEvaluator(self._proto).run
            return list(run(None, dict(zip(self._names, inputs, strict=False))))
        except Exception:
            return None


class Planned:
    """A model's plan: sizes are bound, nothing runs. Results of other shapes raise."""

    host: tuple[str, ...] = ()

    def __init__(self, proto: Any, cls: str = "cpu") -> None:
        from clinfer.graph.reader import read
        from clinfer.lowering.choose import KernelChoice
        from clinfer.lowering.lower import lower
        from clinfer.passes.pipeline import optimise
        from clinfer_kernels.spec import Target

        graph = read(proto).graph()
        optimise(graph)
        self._plan = lower(graph, Target(cls=cls), KernelChoice()).plan
        self._names = [info.name for info in proto.graph.input]

    def run(self, inputs: list[Any]) -> list[Any] | None:
        """Arrays of the results' shapes, without content; None where data may be refused too."""
        from clinfer.lowering.arenas import bind_arena
        from clinfer.lowering.binding import bind_inputs, bind_launch
        from clinfer.lowering.plan import LaunchStep

        shapes = {
            name: array.shape if isinstance(array, np.ndarray) else None
            for name, array in zip(self._names, inputs, strict=False)
        }
        sizes = bind_inputs(self._plan, [shapes[port.name] for port in self._plan.inputs])
        launches = [step for step in self._plan.steps if isinstance(step, LaunchStep)]
        if len(launches) < len(self._plan.steps) or self._plan.checks:
            return None
        for step in launches:
            bind_launch(step, sizes)
        bind_arena(self._plan, sizes, 128)
        return [
            np.broadcast_to(np.float32(0), [sizes(d) for d in port.shape or ()])
            for port in self._plan.outputs
        ]

    def compare(self, expected: list[Any], found: list[Any]) -> None:
        """Raises `AssertionError` where shapes differ."""
        shapes = [np.shape(value) for value in expected if not isinstance(value, list)]
        given = [value.shape for value in found[: len(shapes)]]
        assert given == shapes, f"shapes {shapes} expected, found {given}"


def fault(cases: Cases, name: str, model: Any, peers: Peers, inputs: list[Any]) -> str | None:
    """What is wrong with the model's answer to these inputs; None for nothing."""
    from clinfer.errors import ClinferError

    wanted = peers.runtime(inputs)
    try:
        found = model.run(inputs)
    except ClinferError as error:
        return None if wanted is None else f"refused: {' '.join(str(error).split())[:240]}"
    except AssertionError as error:
        return f"stray access: {error}"
    except Exception as error:
        return f"bare {type(error).__name__}: {str(error)[:120]}"
    if found is None:
        return None
    who = "ONNX Runtime" if wanted is not None else "onnx's evaluator"
    expected = wanted if wanted is not None else peers.evaluator(inputs)
    if expected is None:
        return None if nothing(found) else "not refused, as ONNX Runtime and onnx do"
    try:
        if isinstance(model, Planned):
            model.compare(expected, found)
        else:
            compare(cases, name, expected, found)
    except AssertionError as error:
        return f"not {who}'s values: {' '.join(str(error).split())[:160]}"
    return None


def compare(cases: Cases, name: str, expected: list[Any], found: list[Any]) -> None:
    """As `Cases.compare`; zero is what rounding leaves of a result's greatest element."""
    if len(expected) == len(found) and all(isinstance(e, np.ndarray) for e in expected):
        expected = [
            np.where(np.isclose(e, f, rtol=0, atol=_rounding(e)), f, e).astype(e.dtype)
            if e.dtype.kind == "f" and isinstance(f, np.ndarray) and e.shape == f.shape
            else e
            for e, f in zip(expected, found, strict=True)
        ]
    cases.compare(name, expected, found)


def _rounding(values: Any) -> float:
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    return float(finite.max(initial=0)) * 1e-6


def nothing(results: list[Any]) -> bool:
    """Whether no result has an element: peers refuse many operands without elements."""
    return all(isinstance(value, np.ndarray) and value.size == 0 for value in results)


def is_expected(operators: tuple[str, ...], what: str) -> bool:
    """Whether a difference is one of those that are meant."""
    return any(
        re.search(pattern, what) and (not kinds or set(operators) & set(kinds.split()))
        for kinds, pattern, _ in EXPECTED
    )


def faults(cases: Cases, name: str, proto: Any, device: str) -> tuple[Any, list[str]]:
    """The compiled model, and all that is at fault; `ClinferError` where it does not compile."""
    from conformance_cases import DeviceModel

    peers = Peers(proto)
    make = Planned if device == "PLAN" else lambda proto: DeviceModel(proto, device)
    model = make(proto)
    inputs = next(iter(cases.data(name)))[0]
    found = []
    for label, changed in variants(inputs):
        if device == "PLAN" and " with " in label:
            continue
        what = fault(cases, name, model, peers, changed)
        if what is not None and not is_expected(cases.operators(name), f"{label}: {what}"):
            found.append(f"{label}: {what}")
    return model, found


def mixed(proto: Any) -> list[str]:
    """The element types that do not fit and are not refused."""
    from clinfer import Core
    from clinfer.errors import ClinferError

    def what(model: Any) -> str | None:
        try:
            Core().read_model(model)
        except ClinferError:
            return None
        except Exception as error:
            return f"bare {type(error).__name__}: {str(error)[:120]}"
        return "not refused, as onnx's type inference does"

    found = [(label, what(changed)) for label, changed in retyped(proto)]
    return [f"{label}: {fault}" for label, fault in found if fault is not None]


def run_case(cases: Cases, name: str, device: str) -> Outcome:
    """All variants of one case; the message lists what is at fault."""
    from clinfer.errors import ClinferError

    outcome = Outcome(name, cases.kinds[name], "passed", cases.operators(name))
    proto = dynamic(cases.model(name))
    if not Peers(proto).is_there:
        return replace(outcome, status="no peer")
    try:
        model, found = faults(cases, name, proto, device)
        found += [what for what in mixed(proto) if not is_expected(outcome.operators, what)]
    except ClinferError as error:
        return replace(outcome, status="not compiled", message=str(error)[:300])
    except Exception as error:
        return replace(outcome, status="fault", message=f"bare {type(error).__name__}: {error}")
    if found:
        outcome = replace(outcome, status="fault", message="\n    ".join(found))
    return replace(outcome, host=model.host)


def serve(pipe: Connection, device: str, cached: bool = False) -> None:
    """A worker process: as `conformance_cases.serve`."""
    import guards

    warnings.simplefilter("ignore")
    guards.install()
    cases = Cases()
    pipe.send(None)
    while (name := pipe.recv()) is not None:
        pipe.send(run_case(cases, name, device))


def main() -> int:
    """The command line; exit status 1 where something is at fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--every", type=int, default=1, help="every n-th case")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds per case")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = {n: k for n, k in Cases().kinds.items() if k == "node" and not n.startswith(SKIPPED)}
    chosen = [name for name in kinds if args.match in name][:: args.every]
    outcomes = Pool(chosen, kinds, args.device, args.timeout, serve=serve).run(args.jobs)
    for outcome in outcomes:
        if outcome.status not in ("passed", "no peer"):
            print(f"{outcome.name}: {outcome.status}\n    {outcome.message}")
    lines = [x for o in outcomes if o.status == "fault" for x in o.message.split("\n")]
    print(dict(Counter(kind for line in lines for kind in KINDS_OF_FAULT if kind in line)))
    statuses = Counter(outcome.status for outcome in outcomes)
    print(dict(statuses))
    return 0 if set(statuses) <= {"passed", "no peer", "not compiled"} else 1


if __name__ == "__main__":
    sys.exit(main())
