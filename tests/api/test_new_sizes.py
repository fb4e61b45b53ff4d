"""Sizes that no run had before, one after the other: what was made for the last serves the next."""

from __future__ import annotations

from threading import Thread
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import clinfer
from clinfer.device.player import LaunchRows, LocalMemory, Tables
from clinfer.lowering.binding import BoundLaunch

W = np.random.default_rng(2).standard_normal((64, 64)).astype(np.float32) / 8


def model() -> bytes:
    """present = concat(past, x w) along rows; y = softmax(present present') present."""
    ports = {"past": ["p", 64], "x": ["s", 64], "present": ["t", 64], "y": ["t", 64]}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ports.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Concat", ["past", "xw"], ["present"], axis=0),
        helper.make_node("Transpose", ["present"], ["turned"]),
        helper.make_node("MatMul", ["present", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["share"], axis=-1),
        helper.make_node("MatMul", ["share", "present"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", infos[:2], infos[2:], [numpy_helper.from_array(W, "w")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def expected(past: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = np.concatenate([past, x @ W])
    scores = present.astype(float) @ present.T
    share = np.exp(scores - scores.max(-1, keepdims=True))
    return present, share / share.sum(-1, keepdims=True) @ present


def decode(compiled, seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    past = np.zeros((0, 64), np.float32)
    for step in range(steps):
        # Now and then a long one, whose sizes need more than what is there, then short ones again.
        rows = 300 if step == steps // 2 else 0 if step % 7 == 5 else 1 + step % 2
        x = random.standard_normal((rows, 64)).astype(np.float32)
        if step == steps - 6:
            past = past[:3]
        present, y = compiled([past, x]).to_tuple()
        wanted = expected(past, x)
        np.testing.assert_allclose(present, wanted[0], 1e-4, 1e-4)
        np.testing.assert_allclose(y, wanted[1], 1e-3, 1e-3)
        past = np.asarray(present)


def test_a_cache_that_grows(cpu):
    decode(clinfer.Core().compile_model(onnx.load_from_string(model()), "CPU"), 1, 40)


def test_results_of_earlier_sizes_stay(cpu):
    compiled = clinfer.Core().compile_model(model(), "CPU")
    random = np.random.default_rng(4)
    kept = []
    for rows in range(1, 30):
        inputs = [random.standard_normal((n, 64)).astype(np.float32) for n in (rows, 3)]
        kept.append((compiled(inputs).to_tuple(), expected(*inputs)))
    for found, wanted in kept:
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, 1e-3, 1e-3)


def test_after_a_failed_run(cpu):
    compiled = clinfer.Core().compile_model(model(), "CPU")
    decode(compiled, 5, 20)
    with pytest.raises(clinfer.ClinferError):
        compiled([np.zeros((2, 63), np.float32), np.zeros((1, 64), np.float32)])
    decode(compiled, 6, 20)


def tables_of(locals_: list[int], room: Tables | None = None) -> tuple[Tables, bool]:
    """Tables of launches with so much local memory each, and whether those of the room fit."""
    args = [(("long", 0), *([("local", nbytes)] if nbytes else [])) for nbytes in locals_]
    launches = [BoundLaunch(0, given, (3,), (1,), "a launch") for given in args]
    rows = LaunchRows.of(launches, SimpleNamespace(codes=(1,)))
    values = np.zeros(8, np.uint64)
    local = LocalMemory(rows.local.values(), 2)
    fits = room is not None and room.fits(rows, 2)
    return Tables(None, rows, values, local, room if fits else None), fits


def test_launches_with_local_memory_come_and_go():
    """Threads have arguments of their own only where there is local memory."""
    tables, _ = tables_of([64, 0])
    assert tables.steps[:, 7].astype(bool).tolist() == [True, False]
    other, fits = tables_of([0, 64], tables)
    assert fits
    assert other.steps[:, 7].astype(bool).tolist() == [False, True]


def test_tables_of_no_launch_have_no_room():
    tables, _ = tables_of([])
    assert not tables_of([0], tables)[1]
    assert tables_of([], tables)[1]


def test_what_sizes_of_zero_leave_out(cpu):
    """Runs of no launch, of one of which threads have arguments of their own, of one without."""
    random = np.random.default_rng(7)
    weights = [random.standard_normal((1, 128, 32)).astype(np.float32) for _ in "wr"]
    nodes = [
        helper.make_node("LSTM", ["a", "w", "r"], ["", "z"], hidden_size=32),
        helper.make_node("Sin", ["x"], ["y"]),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {"x": ["n", 512], "a": ["t", 1, 32], "y": ["n", 512]}.items()
    ]
    consts = [numpy_helper.from_array(w, name) for w, name in zip(weights, "wr", strict=True)]
    graph = helper.make_graph(nodes, "g", infos[:2], infos[2:], consts)
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, 32]))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compiled = clinfer.Core().compile_model(proto, "CPU")
    for rows, steps in [(0, 0), *((0, n) for n in range(1, 9)), *((2000 + n, 0) for n in range(9))]:
        x = random.standard_normal((rows, 512)).astype(np.float32)
        y = compiled([x, np.ones((steps, 1, 32), np.float32)])[0]
        np.testing.assert_allclose(y, np.sin(x), 1e-4, 1e-5)


def test_side_by_side(cpu):
    compiled = clinfer.Core().compile_model(model(), "CPU")
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            decode(compiled, seed, 25)
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
