"""Arguments filled in by arrays are those of each launch bound by itself."""

from __future__ import annotations

import numpy as np
import onnx.parser

from clinfer.core import Core
from clinfer.device.instance import scalar_bytes
from clinfer.lowering.binding import Closed, bind_inputs, bind_launch
from clinfer.lowering.plan import LaunchStep

# Rows that are few or many, a view, a softmax, and an If that sizes decide.
MODEL = """<ir_version: 8, opset_import: ["": 17]>
m (float[B, S, 8] x, float[B, P, 8] past) => (y, z) <float[8, 8] w = {{{}}}, int64[1] two = {{2}}>
{{
    keys = Concat<axis = 1>(past, x)  q = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(keys)
    s = MatMul(q, t)  p = Softmax(s)  y = MatMul(p, keys)
    n = Shape<start = 1, end = 2>(past)  big = Greater(n, two)  one = Squeeze(big)
    z = If(one) <then_branch = a () => (u) {{ u = ReduceSum(past) }},
                 else_branch = b () => (v) {{ v = ReduceMax(x) }}>
}}""".format(", ".join(["0.5"] * 64))


def test_words_are_those_of_each_launch() -> None:
    core = Core()
    content = onnx.parser.parse_model(MODEL).SerializeToString()
    model = core.compile_model(content, "CPU")
    x, past = (np.ones((1, n, 8), np.float32) for n in (1, 3))
    model({"x": x, "past": past})
    loaded = model._loaded.executable
    table = loaded.launch_table
    buffers = loaded.plan.buffers
    addresses = [1000 + n for n in range(len(buffers))]
    for batch, rows, kept in ((1, 1, 3), (2, 9, 0), (3, 4, 40), (0, 2, 2)):
        sizes = bind_inputs(loaded.plan, [(batch, rows, 8), (batch, kept, 8)], loaded.tape())
        closed = Closed(loaded.plan, sizes)
        found = table.bound(sizes, closed, addresses, lambda n, s=sizes: buffers[n].nbytes(s))
        expected = []
        for number, step in enumerate(loaded.plan.steps):
            if isinstance(step, LaunchStep) and not closed.has_step(number):
                launch = bind_launch(step, sizes)
                if not launch.is_empty:
                    expected.append((number, launch))
        assert list(found.steps) == [number for number, _ in expected]
        for place, (_, launch) in enumerate(expected):
            start = found.rows.starts[place]
            words = found.values[start : start + len(launch.args)].tolist()
            assert words == [_word(kind, value, addresses) for kind, value in launch.args]
            groups = (*launch.global_size, 1, 1)[:3]
            assert found.rows.groups[place].tolist() == list(groups)
            assert found.flops[place] == launch.flops


def _word(kind: str, value: int, addresses: list[int]) -> int:
    if kind == "buffer":
        return addresses[value]
    return 0 if kind == "local" else int.from_bytes(scalar_bytes(kind, value), "little")
