"""Fuzzes control flow: random graphs of If, Loop, Scan and sequences, next to ONNX Runtime.

    python tools/fuzz_control.py --cases 200 [--first 0] [--device CPU] [--keep FOLDER]

A graph's numbers are small integers, so results are equal or wrong. Loops count or ask or both,
run no step at all, carry rows that grow, sequences, counts; bodies read what is outside several
levels up, hold loops and Ifs of their own, and use the names of other bodies again. Each model runs
several inputs one after the other on one request, then on two threads at once.

A case fails where ONNX Runtime gives a result and clinfer another one, or an error.
"""

from __future__ import annotations

import argparse
import random
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Array = np.ndarray[Any, Any]
_TYPES = {
    "rows": (TensorProto.FLOAT, [None, 3]),
    "row": (TensorProto.FLOAT, [1, 3]),
    "count": (TensorProto.INT64, []),
    "truth": (TensorProto.BOOL, []),
}
_CARRIED = ("rows", "row", "count", "sequence")
_CONSTANTS = {
    "one": np.int64(1),
    "two": np.int64(2),
    "three": np.int64(3),
    "axis0": np.array([0], np.int64),
    "all": np.array([-1], np.int64),
    "low": np.float32(-50),
    "high": np.float32(50),
    "zero": np.float32(0),
    "yes": np.bool_(True),
}


@dataclass
class Scope:
    """A graph in the making: its nodes, and the values that may be read, by kind."""

    rng: random.Random
    depth: int
    prefix: str
    values: dict[str, list[str]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    count: int = 0

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attrs: Any) -> list[str]:
        """A node; its outputs' names are those of other bodies of that depth too."""
        names = [f"{self.prefix}{self.count + n}" for n in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(op, inputs, names, **attrs))
        return names

    def one(self, op: str, *inputs: str, **attrs: Any) -> str:
        """A node of one output."""
        return self.node(op, list(inputs), **attrs)[0]

    def pick(self, kind: str) -> str:
        """A value, of those made last most often."""
        found = self.values[kind]
        return found[-1] if self.rng.random() < 0.5 else self.rng.choice(found)

    def add(self, kind: str, name: str) -> None:
        """A value that may be read from here on."""
        self.values[kind].append(name)

    def inner(self, tag: str) -> Scope:
        """A body's scope, which sees what is outside."""
        values = {kind: list(names) for kind, names in self.values.items()}
        return Scope(self.rng, self.depth + 1, f"{self.prefix}{tag}", values)


def _clipped(scope: Scope, name: str) -> str:
    return scope.one("Clip", name, "low", "high")


def _row(scope: Scope) -> str:
    op = scope.rng.choice(["ReduceSum", "ReduceMax", "ReduceMin"])
    padded = scope.one("Concat", scope.pick("rows"), scope.pick("row"), axis=0)
    return _clipped(scope, scope.one(op, padded, "axis0", keepdims=1))


def _arithmetic(scope: Scope) -> None:
    op = scope.rng.choice(["Add", "Sub", "Max", "Min"])
    kind = scope.rng.choice(["rows", "row"])
    a, b = scope.pick(kind), scope.pick("row")
    scope.add(kind, _clipped(scope, scope.one(op, a, b)))


def _single(scope: Scope) -> None:
    kind = scope.rng.choice(["rows", "row"])
    scope.add(kind, scope.one(scope.rng.choice(["Relu", "Neg", "Abs"]), scope.pick(kind)))


def _reduced(scope: Scope) -> None:
    scope.add("row", _row(scope))


def _longer(scope: Scope) -> None:
    scope.add("rows", scope.one("Concat", scope.pick("rows"), scope.pick("row"), axis=0))


def _shorter(scope: Scope) -> None:
    end = scope.one("Reshape", scope.one("Mod", scope.pick("count"), "three"), "all")
    scope.add("rows", scope.one("Slice", scope.pick("rows"), "axis0", end, "axis0"))


def _chosen(scope: Scope) -> None:
    """The rows whose sum is above 0: how many only a run tells."""
    rows = scope.pick("rows")
    sums = scope.one("ReduceSum", rows, "one1", keepdims=0)
    scope.add("rows", scope.one("Compress", rows, scope.one("Greater", sums, "zero"), axis=0))


def _counted(scope: Scope) -> None:
    rng = scope.rng
    kind = rng.randrange(3)
    if kind == 0:
        found = scope.one("Size", scope.pick("rows"))
    elif kind == 1:
        found = scope.one("Add", scope.pick("count"), rng.choice(["one", "two"]))
    else:
        total = scope.one("ReduceSum", scope.pick("row"), keepdims=0)
        found = scope.one("Abs", scope.one("Cast", total, to=TensorProto.INT64))
    scope.add("count", scope.one("Mod", found, rng.choice(["three", "five"])))


def _asked(scope: Scope) -> None:
    rng = scope.rng
    if rng.random() < 0.5:
        found = scope.one("Less", scope.pick("count"), rng.choice(["one", "two", "three"]))
    else:
        found = scope.one("Greater", scope.one("ReduceSum", scope.pick("row"), keepdims=0), "zero")
    scope.add("truth", found if rng.random() < 0.7 else scope.one("Not", found))


def _listed(scope: Scope) -> None:
    """A sequence, one with more in it, or what is in one."""
    rng = scope.rng
    sequences = scope.values["sequence"]
    if not sequences or rng.random() < 0.3:
        rows = [scope.pick("rows") for _ in range(rng.randint(1, 2))]
        scope.add("sequence", scope.one("SequenceConstruct", *rows))
    elif rng.random() < 0.6:
        scope.add(
            "sequence", scope.one("SequenceInsert", scope.pick("sequence"), scope.pick("rows"))
        )
    else:
        whole = scope.one("ConcatFromSequence", scope.pick("sequence"), axis=0)
        scope.add("rows", whole)
        length = scope.one("SequenceLength", scope.pick("sequence"))
        scope.add("count", scope.one("Mod", length, "five"))


def _body(scope: Scope, name: str, inputs: list[Any], results: list[tuple[str, str]]) -> Any:
    infos = [_info(result, kind) for result, kind in results]
    return helper.make_graph(scope.nodes, name, inputs, infos)


def _info(name: str, kind: str) -> Any:
    if kind == "sequence":
        return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, [None, 3])
    dtype, shape = _TYPES[kind]
    return helper.make_tensor_value_info(name, dtype, shape)


def _given(scope: Scope, kind: str) -> str:
    """A result of a body, which is no value of outside itself."""
    return scope.one("Identity", scope.pick(kind))


def _if(scope: Scope) -> None:
    kinds = [k for k in scope.rng.choices(_CARRIED, k=scope.rng.randint(1, 2)) if scope.values[k]]
    kinds = kinds or ["rows"]
    branches = {}
    for branch in ("then_branch", "else_branch"):
        inner = scope.inner("b")
        _fill(inner, scope.rng.randint(0, 4))
        branches[branch] = _body(inner, branch, [], [(_given(inner, k), k) for k in kinds])
    for kind, name in zip(
        kinds, scope.node("If", [scope.pick("truth")], len(kinds), **branches), strict=True
    ):
        scope.add(kind, name)


def _loop(scope: Scope) -> None:
    rng = scope.rng
    kinds = [k for k in rng.choices(_CARRIED, k=rng.randint(1, 3)) if scope.values[k]] or ["row"]
    limit = scope.one("Mod", scope.pick("count"), "five")
    going = rng.choice(["", "yes", scope.pick("truth")])
    firsts = [scope.pick(kind) for kind in kinds]
    inner = scope.inner("l")
    inputs = [_info(f"{inner.prefix}i", "count"), _info(f"{inner.prefix}c", "truth")]
    for number, kind in enumerate(kinds):
        inputs.append(_info(f"{inner.prefix}s{number}", kind))
        inner.add(kind, f"{inner.prefix}s{number}")
    inner.add("count", f"{inner.prefix}i")
    _fill(inner, rng.randint(1, 5))
    goes_on = f"{inner.prefix}c" if rng.random() < 0.5 else _given(inner, "truth")
    goes_on = inner.one("Identity", goes_on)
    results = [(goes_on, "truth")]
    for number, kind in enumerate(kinds):
        is_kept = rng.random() < 0.15
        own = f"{inner.prefix}s{number}"
        results.append((own if is_kept else _given(inner, kind), kind))
    stacked = [rng.choice(["row", "count"]) for _ in range(rng.randint(0, 2))]
    results += [(_given(inner, kind), kind) for kind in stacked]
    body = _body(inner, "body", inputs, results)
    outputs = scope.node("Loop", [limit, going, *firsts], len(kinds) + len(stacked), body=body)
    for kind, name in zip(kinds, outputs, strict=False):
        scope.add(kind, name)
    for kind, name in zip(stacked, outputs[len(kinds) :], strict=True):
        if kind == "row":
            scope.add("rows", scope.one("Reshape", name, "three1"))
        else:
            total = scope.one("ReduceSum", name, keepdims=0)
            scope.add("count", scope.one("Mod", total, "five"))


def _scan(scope: Scope) -> None:
    rng = scope.rng
    inner = scope.inner("s")
    state, part = f"{inner.prefix}h", f"{inner.prefix}p"
    inputs = [
        _info(state, "row"),
        helper.make_tensor_value_info(part, TensorProto.FLOAT, [3]),
    ]
    first, scanned = scope.pick("row"), scope.pick("rows")
    inner.add("row", state)
    inner.add("row", inner.one("Reshape", part, "three1"))
    _fill(inner, rng.randint(1, 3))
    results = [(_given(inner, "row"), "row"), (_given(inner, "row"), "row")]
    body = _body(inner, "body", inputs, results)
    directions = {"scan_input_directions": [1]} if rng.random() < 0.3 else {}
    if rng.random() < 0.3:
        directions["scan_output_directions"] = [1]
    last, rows = scope.node("Scan", [first, scanned], 2, num_scan_inputs=1, body=body, **directions)
    scope.add("row", last)
    scope.add("rows", scope.one("Reshape", rows, "three1"))


_LEAVES = (
    _arithmetic,
    _single,
    _reduced,
    _longer,
    _shorter,
    _chosen,
    _counted,
    _asked,
    _listed,
)
_BODIES = (_if, _loop, _loop, _scan)
_MOST_DEEP = 3


def _fill(scope: Scope, count: int) -> None:
    for _ in range(count):
        is_leaf = scope.depth >= _MOST_DEEP or scope.rng.random() < 0.75
        scope.rng.choice(_LEAVES if is_leaf else _BODIES)(scope)


def model_of(seed: int) -> onnx.ModelProto:
    """The model of a seed."""
    rng = random.Random(seed)
    values: dict[str, list[str]] = {
        "rows": ["x"],
        "row": ["r"],
        "count": ["n", "two"],
        "truth": ["t"],
        "sequence": [],
    }
    scope = Scope(rng, 0, "v", values)
    _fill(scope, rng.randint(2, 4))
    for _ in range(rng.randint(1, 3)):
        rng.choice(_BODIES)(scope)
        _fill(scope, rng.randint(0, 2))
    kinds = [kind for kind in ("rows", "row", "count", "truth") if scope.values[kind]]
    results = [(_given(scope, kind), kind) for kind in kinds]
    if scope.values["sequence"]:
        whole = scope.one("ConcatFromSequence", scope.pick("sequence"), axis=0)
        results.append((whole, "rows"))
    constants = {
        **_CONSTANTS,
        "five": np.int64(5),
        "one1": np.array([1], np.int64),
        "three1": np.array([-1, 3], np.int64),
    }
    graph = helper.make_graph(
        scope.nodes,
        "control",
        [
            _info("x", "rows"),
            _info("r", "row"),
            _info("n", "count"),
            _info("t", "truth"),
        ],
        [_info(name, kind) for name, kind in results],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def feeds_of(seed: int, number: int) -> dict[str, Array]:
    """Inputs for a run of it; the rows are as many as in every other run."""
    rng = np.random.default_rng([seed, number])
    return {
        "x": rng.integers(-4, 5, (int(rng.integers(0, 4)), 3)).astype(np.float32),
        "r": rng.integers(-4, 5, (1, 3)).astype(np.float32),
        "n": np.array(rng.integers(0, 6), np.int64),
        "t": np.array(rng.random() < 0.5),
    }


class _DiffersError(Exception):
    pass


def _compare(found: list[Array], wanted: list[Array]) -> None:
    for index, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            raise _DiffersError(f"result {index}: {ours.dtype}{ours.shape}, not {theirs.shape}")
        if not np.array_equal(ours, theirs):
            raise _DiffersError(f"result {index}: {ours.ravel()[:9]}, not {theirs.ravel()[:9]}")


def check(core: Any, device: str, seed: int) -> str:
    """'right', 'refused' by both, or 'skipped' where ONNX Runtime takes no model or no input.

    Raises what is wrong.
    """
    import onnxruntime

    content = model_of(seed).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception:  # a graph that ONNX Runtime does not take says nothing about ours
        return "skipped"
    wanted = []
    for number in range(4):
        feeds = feeds_of(seed, number)
        try:
            wanted.append((feeds, session.run(None, feeds)))
        except Exception:  # of these inputs nothing can be said
            continue
    if not wanted:
        return "skipped"
    model = core.compile_model(content, device)
    count = len(model.outputs)

    def run(request: Any, pair: tuple[dict[str, Array], list[Array]]) -> None:
        found = request.infer(pair[0])
        _compare([found[n] for n in range(count)], pair[1])

    request = model.create_infer_request()
    for pair in (*wanted, *wanted[::-1]):
        run(request, pair)
    requests = [model.create_infer_request() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda r: [run(r, pair) for pair in wanted], requests))
    return f"right, {'host steps' if model.host_steps else 'all on the device'}"


def main() -> int:
    import collections

    import clinfer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    core = clinfer.Core()
    totals: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.cases):
        try:
            totals[check(core, options.device, seed)] += 1
        except Exception as error:  # noqa: PERF203
            totals["wrong"] += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:400]}", flush=True)
            if not isinstance(error, _DiffersError) and "clinfer" not in type(error).__module__:
                traceback.print_exc()
            if options.keep:
                onnx.save(model_of(seed), options.keep / f"control-{seed}.onnx")
    print(dict(totals))
    return 1 if totals["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
