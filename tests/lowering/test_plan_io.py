"""A stored plan comes back as it was, is small, and a damaged one is refused with a clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinfer.errors import BlobError
from clinfer.lowering.binding import Sizes, bind_launch
from clinfer.lowering.plan import (
    Block,
    BranchStep,
    Buffer,
    Constraint,
    HostValue,
    LaunchStep,
    Plan,
    PlanArg,
    PlanPort,
    Program,
    Reach,
)
from clinfer.lowering.plan_dump import dump
from clinfer.lowering.plan_io import load
from clinfer_kernels.dims import ceildiv, minimum, sym
from clinfer_kernels.spec import dense

BATCH, LENGTH = sym("batch"), sym("length")
ROWS = BATCH * LENGTH


def plan(layers: int = 3) -> Plan:
    """Layers of one kernel whose sizes follow from two symbols."""
    groups = minimum(ceildiv(768 * ROWS, 4096), 32)
    args = (PlanArg("buffer", 0), PlanArg("buffer", 1), PlanArg("scalar", value=ROWS, ctype="long"))
    step = LaunchStep(0, args, (groups, 1), (1, 1), "layer", 2 * ROWS * 768)
    return Plan(
        (PlanPort("x", "float32", (BATCH, LENGTH, 768), 0),),
        (PlanPort("y", "float32", (BATCH, LENGTH, 768), 1),),
        (Buffer("input", "float32", ROWS * 768), Buffer("output", "float32", ROWS * 768)),
        (Program("k", "__kernel void k() {}", "", (1,)),),
        (step,) * layers,
        (np.arange(5, dtype=np.int64),),
        (Constraint(ROWS, LENGTH * BATCH, "rows"),),
        {"producer": "test"},
    )


def written(layers: int = 3) -> tuple[dict[str, Any], memoryview]:
    text, chunks = dump(plan(layers))
    return json.loads(text), memoryview(b"".join(chunk.tobytes() for chunk in chunks))


def read(document: Any, weights: memoryview) -> Plan:
    return load(json.dumps(document).encode(), weights)


def test_a_plan_comes_back_as_it_was() -> None:
    again = read(*written())
    expected = plan()
    assert again.steps == expected.steps
    assert again.buffers == expected.buffers
    assert again.constraints == expected.constraints
    assert [p.shape for p in again.inputs] == [(BATCH, LENGTH, 768)]
    np.testing.assert_array_equal(again.constants[0], expected.constants[0])
    assert dump(again)[0] == dump(expected)[0]


def test_sizes_are_written_once_however_deep_the_model() -> None:
    assert len(written(3)[0]["sizes"]) == len(written(40)[0]["sizes"])


def test_layers_share_what_is_the_same() -> None:
    first, *others = read(*written()).steps
    for other in others:
        assert other.global_size[0] is first.global_size[0]
        assert all(a is b for a, b in zip(other.args, first.args, strict=True))


@given(st.integers(1, 4), st.integers(1, 600))
def test_bound_sizes_are_those_of_the_model(batch: int, length: int) -> None:
    (first, *_) = read(*written()).steps
    launch = bind_launch(first, Sizes({"batch": batch, "length": length}))
    rows = batch * length
    assert launch.global_size == (min(-(-768 * rows // 4096), 32), 1)
    assert launch.args == (("buffer", 0), ("buffer", 1), ("long", rows))


@pytest.mark.parametrize(
    "size", [[99], [-1], ["batch"], [[0]], [0, 1], [], "batch", None, 1.5, True, {"n": 0}, [True]]
)
def test_what_is_no_size_is_refused(size: Any) -> None:
    for place in ("step", "argument", "buffer", "port", "constraint"):
        document, weights = written()
        if place == "step":
            document["steps"][0][3][0] = size
        elif place == "argument":
            document["steps"][0][2][2][1] = size
        elif place == "buffer":
            document["buffers"][0][2] = size
        elif place == "port":
            document["inputs"][0][2][0] = size
        else:
            document["constraints"][0][0] = size
        with pytest.raises(BlobError):
            read(document, weights)


@pytest.mark.parametrize("sizes", [None, 3, ["batch", ["sum"]], [["mod", "batch", 1.5]], [None]])
def test_what_are_no_sizes_is_refused(sizes: Any) -> None:
    document, weights = written()
    document["sizes"] = sizes
    with pytest.raises(BlobError):
        read(document, weights)


def branching() -> Plan:
    """A launch, then a branch of one launch or two."""
    simple = plan(1)
    (launch,) = simple.steps
    reach = Reach(ROWS, (LENGTH,), (BATCH,), 0, "layer")
    blocks = (
        Block(2, 3, "then", (Constraint(BATCH, 3, "three"),), (reach,)),
        Block(3, 5, "else", error="never"),
    )
    branch = BranchStep(HostValue(2, dense("bool", ())), blocks, "If")
    buffers = (*simple.buffers, Buffer("temp", "bool", 1, first=0, last=1))
    return replace(simple, buffers=buffers, steps=(launch, branch, launch, launch, launch))


def test_branches_come_back_as_they_were() -> None:
    text, chunks = dump(branching())
    again = load(text, memoryview(b"".join(chunk.tobytes() for chunk in chunks)))
    assert again.steps == branching().steps
    assert [number for number, _ in again.outermost(0, 5)] == [0, 1]


@pytest.mark.parametrize(
    ("block", "place", "number"),
    [(0, 0, 1), (0, 1, 4), (1, 0, 2), (1, 1, 6), (1, 1, 2), (0, 1, -1)],
)
def test_blocks_that_are_not_behind_their_branch_are_refused(block, place, number) -> None:
    text, chunks = dump(branching())
    document = json.loads(text)
    document["steps"][1][2][block][place] = number
    with pytest.raises(BlobError):
        read(document, memoryview(b"".join(chunk.tobytes() for chunk in chunks)))
