"""If as a part of the plan, against ONNX Runtime: branches, sizes, captured values, the cache."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

import clinfer
from bench_control import SAMPLES, detector, feeds
from clinfer.lowering.plan import BranchStep

FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
RNG = np.random.default_rng(11)
Array = np.ndarray[Any, Any]


def tensor(name: str, kind: int, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def finished(nodes, inputs, outputs, constants=()) -> bytes:
    initialisers = [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def branch(name: str, nodes: list[onnx.NodeProto], *results: str, kind: int = FLOAT) -> Any:
    return helper.make_graph(nodes, name, [], [tensor(r, kind, None) for r in results])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A cache: the detector is built once for each kind of device."""
    return str(tmp_path_factory.mktemp("cache"))


def compiled(core: clinfer.Core, model: bytes, device: str, folder: str = "") -> Any:
    more = {"CACHE_DIR": folder} if folder else {}
    return core.compile_model(core.read_model(model), device, more)


def assert_as(peer: InferenceSession, model: clinfer.CompiledModel, x: dict[str, Array]) -> None:
    found = model(x)
    for number, wanted in enumerate(peer.run(None, x)):
        assert found[number].shape == wanted.shape
        np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=1e-5)


class Case(NamedTuple):
    """A model, and inputs that take each of its branches."""

    content: bytes
    feeds: list[dict[str, Array]]

    @property
    def peer(self) -> InferenceSession:
        return InferenceSession(self.content, providers=["CPUExecutionProvider"])


@pytest.fixture
def case(device) -> Case:
    """The detector on a CPU; what takes a GPU's compiler less long on the other kind of device."""
    if device == "CPU":
        given = [feeds(rate, batch, batch) for rate in SAMPLES for batch in (1, 3)]
        return Case(detector().SerializeToString(), given)
    return Case(nested(), [inputs(count, a, b) for count in (2, 1) for a, b in WAYS])


def test_each_branch_and_batch_runs_on_the_device(core, device, case, folder):
    model = compiled(core, case.content, device, folder)
    assert not model.host_steps
    assert any(isinstance(step, BranchStep) for step in model.plan.steps)
    for x in (*case.feeds, *reversed(case.feeds)):
        assert_as(case.peer, model, x)


def test_requests_of_several_threads(core, device, case, folder):
    model = compiled(core, case.content, device, folder)
    wanted = [case.peer.run(None, x) for x in case.feeds]

    def work(number: int) -> bool:
        found = model(case.feeds[number % len(wanted)]).to_tuple()
        pairs = zip(wanted[number % len(wanted)], found, strict=True)
        return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24)))


def test_a_branch_is_in_the_cache_and_in_exports(core, device, case, folder):
    compiled(core, case.content, device, folder)
    again = compiled(clinfer.Core(), case.content, device, folder)
    assert again.programs_built == 0
    if device == "CPU":
        stream = io.BytesIO()
        again.export_model(stream)
        again = core.import_model(stream.getvalue(), device)
    for x in case.feeds:
        assert_as(case.peer, again, x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("device", ["CPU"], indirect=True)
def test_a_forked_child_takes_both_branches(core, device, case, folder):
    model = compiled(core, case.content, device, folder)
    if model._loaded.executable.player is None:
        pytest.skip("plans of this driver do not run in a forked child")
    wanted = [case.peer.run(None, x)[0] for x in case.feeds]
    child = os.fork()
    if not child:
        ended = 1
        try:
            pairs = zip(case.feeds, wanted, strict=True)
            ended = int(not all(np.allclose(model(x)[0], y, atol=1e-5) for x, y in pairs))
        finally:
            os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_branch_that_does_not_fit_counts_when_it_is_taken(core, device):
    """One branch multiplies by 3 x 2, the other by 5 x 2: a width of 4 fits neither."""
    nodes = [
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            name="width",
            then_branch=branch("t", [helper.make_node("MatMul", ["x", "three"], ["a"])], "a"),
            else_branch=branch("e", [helper.make_node("MatMul", ["x", "five"], ["b"])], "b"),
        )
    ]
    constants = {n: RNG.standard_normal((s, 2)).astype(np.float32) for n, s in NARROW.items()}
    for width in ("k", 5):
        inputs = [tensor("x", FLOAT, ["n", width]), tensor("c", BOOL, [])]
        content = finished(nodes, inputs, [tensor("y", FLOAT, ["n", 2])], constants)
        model = compiled(core, content, device)
        assert not model.host_steps
        x = RNG.standard_normal((4, 5)).astype(np.float32)
        wide, narrow = {"x": x, "c": np.array(False)}, {"x": x, "c": np.array(True)}
        np.testing.assert_allclose(model(wide)[0], x @ constants["five"], rtol=1e-5, atol=1e-6)
        with pytest.raises(clinfer.ShapeError, match="t"):
            model(narrow)
        np.testing.assert_allclose(model(wide)[0], x @ constants["five"], rtol=1e-5, atol=1e-6)


NARROW = {"three": 3, "five": 5}


def nested() -> bytes:
    """If in If; results that are computed, captured, or the same twice."""
    inner = helper.make_node(
        "If",
        ["b"],
        ["inner"],
        then_branch=branch("it", [helper.make_node("Add", ["twice", "x"], ["p"])], "p"),
        else_branch=branch("ie", [helper.make_node("Identity", ["x"], ["q"])], "q"),
    )
    same = helper.make_node("Identity", ["twice"], ["same"])
    three = helper.make_node("Constant", [], ["three"], value_floats=[3.0, 1.0])
    once = helper.make_node("Identity", ["s"], ["once"])
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node(
            "If",
            ["a"],
            ["y", "z"],
            then_branch=branch(
                "t", [inner, helper.make_node("Neg", ["inner"], ["r"]), same], "r", "same"
            ),
            else_branch=branch(
                "e", [three, helper.make_node("Mul", ["x", "three"], ["s"]), once], "s", "once"
            ),
        ),
        helper.make_node("Sub", ["y", "twice"], ["last"]),
    ]
    inputs = [tensor("x", FLOAT, ["n", 2]), tensor("a", BOOL, [1]), tensor("b", BOOL, [])]
    outputs = [tensor(n, FLOAT, ["n", 2]) for n in ("y", "z", "last")]
    return finished(nodes, inputs, outputs)


WAYS = [(a, b) for a in (True, False) for b in (True, False)]


def inputs(count: int, a: bool, b: bool) -> dict[str, Array]:
    x = RNG.standard_normal((count, 2)).astype(np.float32)
    return {"x": x, "a": np.array([a]), "b": np.array(b)}


def test_if_in_if_and_results_that_are_captured(core, device, folder):
    model = compiled(core, nested(), device, folder)
    assert not model.host_steps
    peer = InferenceSession(nested(), providers=["CPUExecutionProvider"])
    for count in (3, 1, 0):
        for a, b in WAYS:
            assert_as(peer, model, inputs(count, a, b))


def squeezed() -> bytes:
    """torch's x.squeeze(1) under free sizes, twice, and a head behind it."""
    nodes = []
    last = "x"
    for number in range(2):
        then = [helper.make_node("Squeeze", [last, "axis"], [f"a{number}"])]
        other = [helper.make_node("Identity", [last], [f"b{number}"])]
        nodes += [
            helper.make_node("Shape", [last], [f"s{number}"]),
            helper.make_node("Gather", [f"s{number}", "one"], [f"d{number}"]),
            helper.make_node("Equal", [f"d{number}", "one"], [f"c{number}"]),
            helper.make_node(
                "If",
                [f"c{number}"],
                [f"y{number}"],
                then_branch=branch("t", then, f"a{number}"),
                else_branch=branch("e", other, f"b{number}"),
            ),
            helper.make_node("MatMul", [f"y{number}", "w"], [f"m{number}"]),
        ]
        last = f"m{number}"
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    constants = {
        "one": np.int64(1),
        "axis": np.int64([1]),
        "w": RNG.standard_normal((4, 4)).astype(np.float32),
    }
    inputs = [tensor("x", FLOAT, ["n", "k", 4])]
    return finished(nodes, inputs, [tensor("y", FLOAT, None)], constants)


def test_what_comes_after_branches_of_different_shapes_runs_on_the_device(core, device):
    content = squeezed()
    model = compiled(core, content, device)
    assert {step.op["kind"] for step in model.host_steps} <= {"Identity"}
    assert all("branch taken" in step.reason for step in model.host_steps)
    peer = InferenceSession(content, providers=["CPUExecutionProvider"])
    for shape in ((3, 1, 4), (3, 5, 4), (2, 1, 4), (0, 5, 4)):
        assert_as(peer, model, {"x": RNG.standard_normal(shape).astype(np.float32)})


def test_branches_with_host_steps_and_late_sizes_around(core, device):
    """Det has no kernel; NonZero's size is known when it has run."""
    then = [
        helper.make_node("Det", ["x"], ["d"]),
        helper.make_node("Add", ["d", "few"], ["p"]),
    ]
    other = [helper.make_node("Mul", ["few", "few"], ["q"])]
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"]),
        helper.make_node("Cast", ["found"], ["floats"], to=FLOAT),
        helper.make_node("ReduceSum", ["floats"], ["few"], keepdims=0),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=branch("t", then, "p"),
            else_branch=branch("e", other, "q"),
        ),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    inputs = [tensor("x", FLOAT, ["n", "n"]), tensor("c", BOOL, [])]
    content = finished(nodes, inputs, [tensor("z", FLOAT, []), tensor("floats", FLOAT, None)])
    model = compiled(core, content, device)
    assert {step.op["kind"] for step in model.host_steps} == {"Det"}
    peer = InferenceSession(content, providers=["CPUExecutionProvider"])
    for condition in (True, False, True):
        x = np.round(RNG.standard_normal((3, 3))).astype(np.float32)
        assert_as(peer, model, {"x": x, "c": np.array(condition)})


SQUEEZED = {
    "what comes after": (
        "(float[N, C, 1, W] x) => (y) { t = Squeeze(x) y = Relu(t) }",
        [(2, 3, 1, 4), (1, 3, 1, 4), (2, 1, 1, 4), (1, 1, 1, 1)],
    ),
    "nothing comes after": ("(float[N, C] x) => (y) { y = Squeeze(x) }", [(2, 3), (1, 3), (1, 1)]),
    "sizes that are one": ("(float[N, N] x) => (y) { y = Squeeze(x) }", [(2, 2), (1, 1)]),
    "one of the ranks fits": (
        """(float[N, 8, H, W] x) => (y) {
            a = Squeeze(x) b = Transpose<perm = [1, 0]>(a) y = Relu(b) }""",
        [(2, 8, 1, 1), (1, 8, 1, 3), (1, 8, 4, 1)],
    ),
    "sizes that a run gives": (
        "(float[N] x) => (y) { a = NonZero(x) b = Squeeze(a) y = Neg(b) }",
        [(4,), (1,)],
    ),
}


@pytest.mark.parametrize("name", SQUEEZED)
def test_a_squeeze_without_axes_asks_the_sizes(core, device, name):
    text, shapes = SQUEEZED[name]
    head = '<ir_version: 8, opset_import: ["": 17]> m '
    content = onnx.parser.parse_model(head + text).SerializeToString()
    peer = InferenceSession(content, providers=["CPUExecutionProvider"])
    model = compiled(core, content, device)
    for shape in (*shapes, *shapes):
        assert_as(peer, model, {"x": RNG.normal(size=shape).astype(np.float32)})
    if "that a run gives" not in name:
        kinds = {step.label.split()[0] for step in model.host_steps}
        assert kinds == {"Identity"}, "results alone are read back"
