"""Loops of many steps, which are done in one go where they are alike, next to ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest

from clinfer.errors import InputError

HEAD = '<ir_version: 8, opset_import: ["": 18]>'
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 4
MANY = np.sin(np.arange(400, dtype=np.float32)).reshape(100, 4)


def _floats(number):
    return np.array(number, np.float32)


# Name -> (text, feeds of runs on one request).
CASES = {
    "what is stacked outgrows its memory, a condition ends it": (
        """m (int64 n, bool go, float[2, 3] x, float top) => (y, z) <float more = {1.01}> {
            y, z = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, t, r) {
                f = Cast<to = 1>(i) a = Mul(s, more) g = Sin(f) t = Add(a, g)
                m = ReduceMax<keepdims = 0>(t) d = Less(m, top)
                r = ReduceSum<keepdims = 0>(t) }>
        }""",
        [
            {"n": np.array(n), "go": np.array(go), "x": X, "top": _floats(top)}
            for n, go, top in (
                (600, True, 1e9),
                (0, True, 1e9),
                (1 << 40, True, 20),
                (30, False, 1e9),
                (30, True, -1),
                (5, True, 1e9),
            )
        ],
    ),
    # States of so many bytes are not copied; the step's own temporaries must not lie where they do.
    "large states": (
        """m (int64 n, float[40, 100] x, float[N, 100] w) => (y, z, q)
        <bool go = {1}, float half = {0.5}, float part = {0.001}> {
            y, z, q = Loop(n, go, x, x, w) <body = b (int64 i, bool c, float[40, 100] s,
                float[40, 100] t, float[N, 100] r) => (d, u, v, o) {
                d = Identity(c) e = Sin(s) f = Transpose(e) g = MatMul(f, t) h = Mul(g, part)
                k = MatMul(t, h) l = Tanh(k) m = Add(l, s) u = Mul(m, half) p = Sub(l, t)
                v = Mul(p, half)
                o = Sub(w, r) }>
        }""",
        [
            {"n": np.array(n), "x": np.tile(MANY[:40], 25), "w": np.tile(MANY[:rows], 25)}
            for n, rows in ((20, 20), (21, 20), (2, 20), (5, 30), (0, 30))
        ],
    ),
    "large states of fixed sizes": (
        """m (int64 n, float[40, 100] x) => (y, z)
        <bool go = {1}, float half = {0.5}, float part = {0.001}> {
            y, z = Loop(n, go, x, x) <body = b (int64 i, bool c, float[40, 100] s,
                float[40, 100] t) => (d, u, v) {
                d = Identity(c) e = Sin(s) f = Transpose(e) g = MatMul(f, t) h = Mul(g, part)
                k = MatMul(t, h) l = Tanh(k) m = Add(l, s) u = Mul(m, half) p = Sub(l, t)
                v = Mul(p, half) }>
        }""",
        [{"n": np.array(n), "x": np.tile(MANY[:40], 25)} for n in (20, 21, 2, 0)],
    ),
    "a scan from the end": (
        """m (float[T, 4] x, float[4] h) => (y, z) {
            y, z = Scan<num_scan_inputs = 1, scan_input_directions = [1],
                        scan_output_directions = [1], body = b (float[4] s, float[4] p) => (t, r) {
                q = Add(s, p) t = Tanh(q) r = Mul(t, p) }>(h, x)
        }""",
        [{"x": MANY[:t], "h": MANY[0]} for t in (100, 1, 6, 40)],
    ),
    "branches, a loop in a loop": (
        """m (int64 n, int64 k, float[2, 3] x) => (y) <bool go = {1}, int64 two = {2}> {
            y = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, u) {
                d = Identity(c) kk = Add(k, i)
                u = Loop(kk, go, s) <body = a (int64 j, bool cc, float[2, 3] r) => (dd, t) {
                    dd = Identity(cc) m = Mod(j, two) e = Cast<to = 9>(m) f = Cast<to = 1>(i)
                    t = If(e) <then_branch = p () => (v) { g = Add(r, f) v = Sin(g) },
                               else_branch = q () => (w) { w = Sub(x, r) }> }>
            }>
        }""",
        [{"n": np.array(n), "k": np.array(k), "x": X} for n, k in ((3, 20), (4, 0), (0, 9))],
    ),
    # A step reads two rows from its number on: a view that moves, and is cut at the end.
    "positions that each step reads": (
        """m (int64 n, float[N, 4] x) => (y)
        <bool go = {1}, int64[1] one = {1}, int64[1] two = {2}, int64[1] axis = {0}> {
            first = Slice(x, axis, one, axis)
            y = Loop(n, go, first) <body = b (int64 i, bool c, float[1, 4] s) => (d, t) {
                d = Identity(c) a = Reshape(i, one) e = Add(a, two) p = Slice(x, a, e, axis)
                m = ReduceSum<keepdims = 1>(p, axis) t = Add(s, m) }>
        }""",
        [{"n": np.array(n), "x": MANY[:rows]} for n, rows in ((50, 60), (50, 30), (3, 9), (0, 4))],
    ),
    "positions that one branch or the other reads": (
        """m (int64 n, float[N, 4] x) => (y)
        <bool go = {1}, int64[1] one = {1}, int64 two = {2}, int64[1] axis = {0}> {
            first = Slice(x, axis, one, axis)
            y = Loop(n, go, first) <body = b (int64 i, bool c, float[1, 4] s) => (d, t) {
                d = Identity(c) a = Reshape(i, one) e = Add(a, one) p = Slice(x, a, e, axis)
                m = Mod(i, two) o = Cast<to = 9>(m)
                t = If(o) <then_branch = k () => (v) { w = ReduceSum(p, axis) v = Add(s, w) },
                           else_branch = q () => (u) { r = ReduceMax(p, axis) u = Sub(s, r) }> }>
        }""",
        [{"n": np.array(n), "x": MANY[:rows]} for n, rows in ((50, 60), (3, 9))],
    ),
    # The number of what is not zero changes now and then: steps are left in the middle.
    "sizes that change after many steps": (
        """m (int64 n, float[N] x, float[40, 100] big) => (y, o, z)
        <bool go = {1}, float zero = {0}, float slow = {20}> {
            y, o, z = Loop(n, go, zero, big) <body = b (int64 i, bool c, float s, float[40, 100] u)
                => (d, t, k, q) {
                f = Cast<to = 1>(i) k = Sub(f, u)
                d = Identity(c) v = Cast<to = 1>(i) w = Div(v, slow) l = Floor(w) g = Sub(x, l)
                r = Relu(g) p = NonZero(r) q = Size(p) h = Cast<to = 1>(q) t = Add(s, h) }>
        }""",
        [
            {
                "n": np.array(n),
                "x": np.arange(rows, dtype=np.float32),
                "big": np.tile(MANY[:40], 25),
            }
            for n, rows in ((100, 5), (101, 5), (30, 2), (0, 3))
        ],
    ),
}


def _models(core, device, text):
    content = onnx.parser.parse_model(HEAD + text).SerializeToString()
    theirs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return theirs, core.compile_model(content, device)


def _same(found, wanted):
    for ours, theirs in zip(found.values(), wanted, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["CPU"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_many_steps_give_what_onnx_runtime_gives(core, device, name):
    text, feeds = CASES[name]
    theirs, ours = _models(core, device, text)
    for feed in (*feeds, *feeds):
        _same(ours(feed), theirs.run(None, feed))


@pytest.mark.parametrize("device", ["CPU"], indirect=True)
def test_requests_side_by_side_have_steps_of_their_own(core, device):
    text, feeds = CASES["positions that each step reads"]
    theirs, ours = _models(core, device, text)
    wanted = [theirs.run(None, feed) for feed in feeds]

    def run(_):
        request = ours.create_infer_request()
        for feed, result in zip(feeds * 3, wanted * 3, strict=True):
            _same({n: request.infer(feed)[n] for n in range(1)}, result)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(run, range(4)))) == 4


POSITIONS = {
    "sizes that are known": "p = Gather(x, w)",
    "sizes that each step gives": "m = NonZero(x) f = Flatten(m) k = Size(f) "
    "l = CastLike(k, w) q = Add(l, w) r = Sub(q, l) p = Gather(x, r)",
}


@pytest.mark.parametrize("device", ["CPU"], indirect=True)
@pytest.mark.parametrize("name", POSITIONS)
def test_a_position_outside_ends_the_loop_that_has_it(core, device, name):
    text = f"""m (int64 n, int64[K] at, float[N] x) => (y)
    <bool go = {{1}}, float zero = {{0}}, float top = {{1000}}> {{
        y = Loop(n, go, zero) <body = b (int64 i, bool c, float s) => (d, t) {{
            w = Gather(at, i) {POSITIONS[name]} t = Add(s, p) d = Less(t, top) }}> }}"""
    theirs, ours = _models(core, device, text)
    at = np.arange(40) % 7
    feed = {"n": np.array(40), "at": at, "x": np.arange(1, 8, dtype=np.float32)}
    _same(ours(feed), theirs.run(None, feed))
    at[30] = 7
    with pytest.raises(InputError, match="is 7 where"):
        ours({**feed, "at": at})
    at[30] = 6
    _same(ours({**feed, "at": at}), theirs.run(None, {**feed, "at": at}))
