"""Loops whose number of steps only a run knows, next to ONNX Runtime."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest

import clinfer
from clinfer.errors import ClinferError

HEAD = '<ir_version: 8, opset_import: ["": 18]>'
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 4

# Name -> (text, feeds of some runs). All sizes and counts are inputs.
CASES = {
    "a number of steps": (
        """m (int64 n, float[2, 3] x) => (y, z) <bool go = {1}> {
            y, z = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, t, r) {
                d = Identity(c) f = Cast<to = 1>(i) t = Add(s, f) r = ReduceSum<keepdims = 0>(t) }>
        }""",
        [{"n": np.int64(n), "x": X} for n in (4, 0, 1, 7)],
    ),
    "a condition alone": (
        """m (float[2, 3] x, float limit) => (y) <bool go = {1}, float two = {2}> {
            y = Loop("", go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, t) {
                t = Mul(s, two) m = ReduceMax<keepdims = 0>(t) d = Less(m, limit) }>
        }""",
        [{"x": X + 1, "limit": np.float32(n)} for n in (100, 1, 17)],
    ),
    "a limit, a condition and a first condition": (
        """m (int64 n, bool go, float[2, 3] x) => (y, z) <float top = {9}> {
            y, z = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, t, s) {
                t = Add(s, s) m = ReduceMax<keepdims = 0>(t) d = Less(m, top) }>
        }""",
        [
            {"n": np.int64(n), "go": np.bool_(go), "x": X}
            for n, go in ((3, True), (10, True), (5, False), (0, True))
        ],
    ),
    "a state that grows": (
        """m (int64 n, float[K, 3] x) => (y, z) <bool go = {1}> {
            y, z = Loop(n, go, x) <body = b (int64 i, bool c, float[L, 3] s) => (d, t, r) {
                d = Identity(c) e = Relu(s) t = Concat<axis = 0>(s, x)
                r = ReduceSum<keepdims = 0>(t) }>
        }""",
        [{"n": np.int64(n), "x": X + k} for n, k in ((3, 0), (1, 1), (6, 0), (0, 0), (3, 5))],
    ),
    "states that change places": (
        """m (int64 n, float[2, 3] x, float[2, 3] w) => (y, z) <bool go = {1}> {
            y, z = Loop(n, go, x, w) <body = b (int64 i, bool c, float[2, 3] s, float[2, 3] t)
                => (d, t, u) { d = Identity(c) u = Add(s, t) }>
        }""",
        [{"n": np.int64(n), "x": X, "w": X * 3 + 1} for n in (5, 0, 2)],
    ),
    "a loop in a loop, and an If": (
        """m (int64 n, int64 k, float[2, 3] x) => (y)
        <bool go = {1}, int64 two = {2}, int64 one = {1}> {
            y = Loop(n, go, x) <body = b (int64 i, bool c, float[2, 3] s) => (d, u) {
                d = Identity(c) m = Mod(i, two) e = Equal(m, one)
                t = If(e) <then_branch = p () => (v) { v = Mul(s, x) },
                           else_branch = q () => (w) { w = Sub(x, s) }>
                kk = Add(k, i)
                u = Loop(kk, go, t) <body = a (int64 j, bool cc, float[2, 3] r) => (dd, rr) {
                    dd = Identity(cc) f = Cast<to = 1>(j) g = Cast<to = 1>(i) h = Add(f, g)
                    rr = Add(r, h) }>
            }>
        }""",
        [{"n": np.int64(n), "k": np.int64(k), "x": X} for n, k in ((3, 1), (0, 4), (4, 0))],
    ),
    "steps of sizes from data": (
        """m (int64 n, float[N] x) => (y, z) <bool go = {1}, float first = {0}> {
            f = CastLike(first, x)
            y, z = Loop(n, go, f) <body = b (int64 i, bool c, float s) => (d, t, q) {
                d = Identity(c) v = Cast<to = 1>(i) g = Sub(x, v) r = Relu(g) p = NonZero(r)
                q = Size(p) h = Cast<to = 1>(q) t = Add(s, h) }>
        }""",
        [{"n": np.int64(n), "x": np.arange(6, dtype=np.float32)} for n in (4, 2, 0, 9)],
    ),
    "a scan of any length": (
        """m (float[T, 2] x, float[2] h) => (y, z) {
            y, z = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] p) => (t, r) {
                q = Add(s, p) t = Tanh(q) r = Mul(t, p) }>(h, x)
        }""",
        [{"x": np.full((t, 2), 0.3, np.float32), "h": np.ones(2, np.float32)} for t in (5, 1, 9)],
    ),
    "a scan from the end, along other axes": (
        """m (float[2, T, 3] x, float[2, 3] h) => (y, z) {
            y, z = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                        scan_output_axes = [-1], scan_output_directions = [1],
                        body = b (float[2, 3] s, float[2, 3] p) => (t, r) {
                            q = Add(s, p) t = Tanh(q) r = Mul(t, p) }>(h, x)
        }""",
        [
            {"x": np.random.default_rng(t).normal(size=(2, t, 3)).astype(np.float32), "h": X}
            for t in (4, 1)
        ],
    ),
    "what has a buffer of its own is a body's result": (
        """m (int64 n, float[1, 1, 6, 6] x, float[R, 4] r, int64[R] i) => (y) <bool go = {1}> {
            y = Loop(n, go) <body = b (int64 j, bool c) => (d, t) {
                d = Identity(c)
                t = RoiAlign<output_height = 2, output_width = 2>(x, r, i) }>
        }""",
        [
            {
                "n": np.int64(n),
                "x": np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6),
                "r": np.array([[0, 0, 3, 3], [1, 1, 5, 4]], np.float32),
                "i": np.zeros(2, np.int64),
            }
            for n in (2, 1)
        ],
    ),
    "a beam search": (
        """m (int64[W] first, float[8, 4] emb, float[4, 8] head, int64 n) => (y, z)
        <bool go = {1}, int64[1] all = {-1}, int64[1] three = {3}, int64 eight = {8},
         int64[1] one = {1}> {
            s0 = Unsqueeze(first, one) f = Cast<to = 1>(first) zero = Sub(f, f)
            y, z = Loop(n, go, s0, zero) <body = b
                (int64 i, bool c, int64[B, L] s, float[B] sc) => (d, t, v) {
                d = Identity(c) e = Gather(emb, s) m = ReduceSum<keepdims = 0>(e, one)
                l = MatMul(m, head) p = LogSoftmax<axis = -1>(l) o = Unsqueeze(sc, one)
                q = Add(p, o) r = Reshape(q, all) v, k = TopK(r, three) from = Div(k, eight)
                new = Mod(k, eight) g = Gather(s, from) w = Unsqueeze(new, one)
                t = Concat<axis = 1>(g, w) }>
        }""",
        [
            {
                "first": np.arange(w),
                "emb": np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32),
                "head": np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32),
                "n": np.int64(n),
            }
            for w, n in ((3, 4), (1, 2), (2, 0), (3, 6))
        ],
    ),
    "an inner loop reads what the outer one changes": (
        """m (int64 n, int64 k, float[N, 3] x) => (y, z) <bool go = {1}> {
            y, z = Loop(n, go, x) <body = b (int64 i, bool c, float[M, 3] s) => (d, u, q) {
                d = Identity(c) w = ReduceSum<keepdims = 1>(s) kk = Add(k, i)
                u, p = Loop(kk, go, s) <body = a
                    (int64 j, bool cc, float[L, 3] r) => (dd, t, e) {
                    dd = Identity(cc) f = Cast<to = 1>(j) h = Add(f, w) g = Mul(r, h)
                    o = Add(g, s) t = Tanh(o) e = ReduceMax<keepdims = 0>(t) }>
                q = ReduceSum<keepdims = 0>(p) }>
        }""",
        [
            {"n": np.int64(n), "k": np.int64(k), "x": np.full((rows, 3), 0.2, np.float32)}
            for n, k, rows in ((3, 1, 2), (0, 4, 5), (4, 0, 1), (2, 2, 7))
        ],
    ),
    "a state handed on, and a constant one": (
        """m (int64 n, float[2, 3] x) => (y, z, w)
        <bool go = {1}, float[2, 3] k = {1, 2, 3, 4, 5, 6}> {
            y, z, w = Loop(n, go, x, x, k) <body = b
                (int64 i, bool c, float[2, 3] s, float[2, 3] t, float[2, 3] u) => (d, s, j, v) {
                d = Identity(c) j = Identity(k) v = Add(u, t) }>
        }""",
        [{"n": np.int64(n), "x": X} for n in (2, 0, 3)],
    ),
    "a state that begins as one number in the run's shape": (
        """m (int64 n, float[N, 3] x) => (y, z) <bool go = {1}, float zero = {0}> {
            s = Shape(x) first = Expand(zero, s)
            y, z = Loop(n, go, first) <body = b (int64 i, bool c, float[N, 3] a) => (d, t, q) {
                d = Identity(c) t = Add(a, x) q = ReduceSum<keepdims = 0>(t) }>
        }""",
        [{"n": np.int64(n), "x": np.ones((rows, 3), np.float32)} for n, rows in ((2, 4), (0, 1))],
    ),
    # As Paddle's exporter writes while: variables of the body begin as a number that no step reads,
    # and what is one element has now no axis, now one.
    "states that begin with another rank": (
        """m (int64 n, float[B, 3] x) => (a, b, c)
        <bool go = {1}, float none = {0}, bool no = {0}, int64[1] zero = {0}, float one = {1}> {
            l, b, c = Loop(n, go, none, x, no) <body = b
                (int64 i, bool k, float p, float[B, 3] s, bool o) => (d, q, t, u) {
                q = Add(s, s) t = Add(q, one) m = ReduceMax<keepdims = 0>(t) e = Greater(m, one)
                f = If(e) <then_branch = y () => (g) { g = Identity(k) },
                           else_branch = w () => (h) {
                               v = Cast<to = 7>(o) z = Add(v, zero) h = Cast<to = 9>(z) }>
                r = Not(f) j = Or(r, k) jj = Cast<to = 7>(j) dd = Add(jj, zero) d = Cast<to = 9>(dd)
                ff = Cast<to = 7>(f) uu = Add(ff, zero) u = Cast<to = 9>(uu) }>
            a = Identity(l)
        }""",
        [{"n": np.int64(n), "x": np.full((r, 3), 0.1, np.float32)} for n, r in ((3, 2), (1, 5))],
    ),
    "a sequence that grows": (
        """m (int64 n, float[2, 3] x) => (y) <bool go = {1}> {
            e = SequenceEmpty<dtype = 1>()
            q = Loop(n, go, e) <body = b (int64 i, bool c, seq(float[2, 3]) s) => (d, t) {
                d = Identity(c) f = Cast<to = 1>(i) a = Mul(x, f) t = SequenceInsert(s, a) }>
            y = ConcatFromSequence<axis = 0>(q)
        }""",
        [{"n": np.int64(n), "x": X} for n in (3, 1, 5)],
    ),
}


def _models(core, device, name):
    proto = onnx.parser.parse_model(HEAD + CASES[name][0])
    content = proto.SerializeToString()
    theirs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return theirs, core.compile_model(content, device)


def _run(session, feed):
    return session.run(None, {name: np.asarray(content) for name, content in feed.items()})


def _same(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_loop_gives_what_onnx_runtime_gives(core, device, name):
    theirs, ours = _models(core, device, name)
    feeds = CASES[name][1]
    for feed in (*feeds, *feeds):
        found = ours(feed)
        _same([found[n] for n in range(len(ours.outputs))], _run(theirs, feed))
    if "sequence" not in name:
        assert [step.reason for step in ours.host_steps] == []


ENDLESS = {
    "sizes that are known": "d = Identity(c) t = Tanh(s)",
    "sizes that each step gives": """d = Identity(c) z = NonZero(s) u = Size(z)
        f = Cast<to = 1>(u) t = Add(s, f)""",
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("device", ["CPU"], indirect=True)
@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_loop_ends_when_it_is_interrupted(core, device, name):
    text = f"""m (float[N] x) => (y) <bool go = {{1}}> {{
        y = Loop("", go, x) <body = b (int64 i, bool c, float[N] s) => (d, t) {{
            {ENDLESS[name]} }}> }}"""
    model = core.compile_model(onnx.parser.parse_model(HEAD + text).SerializeToString(), device)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            model({"x": X[0]})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_loop_ends_when_it_is_cancelled(core, device, name):
    text = f"""m (float[N] x, bool go) => (y) {{
        y = Loop("", go, x) <body = b (int64 i, bool c, float[N] s) => (d, t) {{
            {ENDLESS[name]} }}> }}"""
    model = core.compile_model(onnx.parser.parse_model(HEAD + text).SerializeToString(), device)
    request = model.create_infer_request()
    request.start_async({"x": X[0], "go": np.array(True)})
    assert not request.wait(20)
    request.cancel()
    with pytest.raises(ClinferError, match="cancelled"):
        request.wait()
    np.testing.assert_array_equal(request.infer({"x": X[0], "go": np.array(False)})[0], X[0])


def test_requests_side_by_side_do_not_see_one_another(core, device):
    theirs, ours = _models(core, device, "a state that grows")
    feeds = [{"n": np.int64(n % 5), "x": X * n} for n in range(1, 25)]

    def run(feed):
        request = ours.create_infer_request()
        found = request.infer(feed)
        return [found[n] for n in range(2)]

    with ThreadPoolExecutor(4) as pool:
        for found, feed in zip(pool.map(run, feeds), feeds, strict=True):
            _same(found, _run(theirs, feed))


def test_a_loop_that_must_run_says_so(core, device):
    """What no step gives has the rank of its first value, which nothing after the loop expects."""
    _, ours = _models(core, device, "states that begin with another rank")
    with pytest.raises(clinfer.ShapeError, match="no step of it runs"):
        ours({"n": np.int64(0), "x": np.ones((2, 3), np.float32)})
