"""Layers as onnxruntime-genai and ONNX Runtime's optimiser write them, on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

T = onnx.TensorProto
WIDTH, HEADS, SHARED, HEAD, WORDS = 64, 4, 2, 16, 32
EPSILON = {"epsilon": 1e-5}


class Layers:
    """Nodes of com.microsoft and their constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._rng = np.random.default_rng(0)

    def add(
        self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **a: Any
    ) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **a))
        return outputs[0]

    def ms(self, op: str, inputs: list[str], outputs: list[str], **a: Any) -> str:
        return self.add(op, inputs, outputs, "com.microsoft", **a)

    def constant(self, name: str, *shape: int, scale: float = 1.0) -> str:
        return self.given(name, (self._rng.normal(size=shape) * scale).astype(np.float32))

    def given(self, name: str, array: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def four_bits(self, name: str, x: str, inner: int, columns: int) -> str:
        packed = self._rng.integers(0, 256, (columns, inner // 32, 16)).astype(np.uint8)
        scales = self._rng.uniform(0.01, 0.02, (columns, inner // 32)).astype(np.float32)
        inputs = [x, self.given(f"{name}_b", packed), self.given(f"{name}_s", scales)]
        sizes = {"K": inner, "N": columns, "bits": 4, "block_size": 32}
        return self.ms("MatMulNBits", inputs, [name], **sizes)

    def model(self, inputs: dict[str, Any], outputs: list[str]) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
        results = [helper.make_tensor_value_info(n, T.FLOAT, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "layers", infos, results, self.constants)
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


def decoder() -> onnx.ModelProto:
    """A layer with a cache of keys and values, weights of 4 bits, and the mask's lengths."""
    net = Layers()
    net.given("one", np.array([1], np.int64))
    x = net.add("Gather", [net.constant("words", WORDS, WIDTH), "ids"], ["x"])
    net.add("ReduceSum", ["mask", "one"], ["sums"], keepdims=1)
    net.add("Sub", ["sums", "one"], ["before"])
    net.add("Cast", ["before"], ["last"], to=T.INT32)
    net.add("Shape", ["mask"], ["sizes"])
    net.add("Gather", ["sizes", net.given("first", np.array(1, np.int64))], ["length"], axis=0)
    net.add("Cast", ["length"], ["total"], to=T.INT32)
    norm = [x, net.constant("g0", WIDTH)]
    net.add("SimplifiedLayerNormalization", norm, ["n0"], axis=-1, **EPSILON)
    net.four_bits("qkv", "n0", WIDTH, (HEADS + 2 * SHARED) * HEAD)
    tables = [net.constant(n, 32, HEAD // 2) for n in ("cos", "sin")]
    inputs = ["qkv", "", "", "past_k", "past_v", "last", "total", *tables]
    heads = {"num_heads": HEADS, "kv_num_heads": SHARED, "do_rotary": 1}
    net.ms("GroupQueryAttention", inputs, ["seen", "keys", "values"], **heads)
    net.four_bits("mixed", "seen", HEADS * HEAD, WIDTH)
    skip = [x, "mixed", net.constant("g1", WIDTH)]
    net.ms("SkipSimplifiedLayerNormalization", skip, ["n1", "", "", "x1"], **EPSILON)
    net.four_bits("up", "n1", WIDTH, 96)
    net.ms("QuickGelu", ["up"], ["bent"], alpha=1.0)
    net.four_bits("down", "bent", 96, WIDTH)
    last = ["x1", "down", net.constant("g2", WIDTH)]
    net.ms("SkipSimplifiedLayerNormalization", last, ["y"], **EPSILON)
    cache = (T.FLOAT, ["b", SHARED, "p", HEAD])
    inputs_ = {"ids": (T.INT64, ["b", "s"]), "mask": (T.INT64, ["b", "t"])}
    return net.model({**inputs_, "past_k": cache, "past_v": cache}, ["y", "keys", "values"])


def encoder() -> onnx.ModelProto:
    """An optimised layer of BERT, its last product quantised when it runs."""
    net = Layers()
    tables = [net.constant(n, WORDS, WIDTH) for n in ("words", "places")]
    scales = [net.constant(n, WIDTH) for n in ("g0", "b0")]
    inputs = ["ids", "", *tables, "", *scales, "mask"]
    net.ms("EmbedLayerNormalization", inputs, ["x", "lengths"], **EPSILON)
    weights = [net.constant("w", WIDTH, 3 * WIDTH, scale=0.1), net.constant("b", 3 * WIDTH)]
    net.ms("Attention", ["x", *weights, "lengths"], ["seen"], num_heads=HEADS)
    net.ms("FusedMatMul", ["seen", net.constant("m", WIDTH, WIDTH, scale=0.1)], ["mixed"], transB=1)
    norm = ["mixed", "x", *(net.constant(n, WIDTH) for n in ("g1", "b1", "c1"))]
    net.ms("SkipLayerNormalization", norm, ["n1"], **EPSILON)
    net.add("MatMul", ["n1", net.constant("up", WIDTH, 96, scale=0.1)], ["wide"])
    net.ms("BiasGelu", ["wide", net.constant("c2", 96)], ["bent"])
    codes = np.random.default_rng(1).integers(0, 256, (96, WIDTH)).astype(np.uint8)
    product = [net.given("codes", codes), net.given("scale", np.float32(0.002))]
    product.append(net.given("zero", np.uint8(128)))
    net.ms("DynamicQuantizeMatMul", ["bent", *product], ["y"])
    return net.model({"ids": (T.INT32, ["b", "s"]), "mask": (T.INT32, ["b", "s"])}, ["y"])


def by_onnxruntime(content: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    return list(onnxruntime.InferenceSession(content.SerializeToString()).run(None, feeds))


def test_a_decoder_with_a_cache_runs_on_the_device(core, device):
    content = decoder()
    model = core.compile_model(content, device)
    assert model.host_steps == ()
    rng = np.random.default_rng(2)
    for batch, length, past in ((2, 4, 0), (2, 1, 5), (1, 3, 4)):
        feeds = {
            "ids": rng.integers(0, WORDS, (batch, length)),
            "mask": np.ones((batch, past + length), np.int64),
        }
        for name in ("past_k", "past_v"):
            feeds[name] = rng.normal(size=(batch, SHARED, past, HEAD)).astype(np.float32)
        found = model(feeds).to_tuple()
        for got, want in zip(found, by_onnxruntime(content, feeds), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_an_encoder_runs_on_the_device(core, device):
    content = encoder()
    model = core.compile_model(content, device)
    assert model.host_steps == ()
    rng = np.random.default_rng(3)
    for lengths in ((4, 2), (1, 1)):
        ids = rng.integers(0, WORDS, (2, max(lengths))).astype(np.int32)
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
        feeds = {"ids": ids, "mask": mask}
        # One step of the quantised activations is seen where a sum lies on the edge.
        found, want = model(feeds)[0], by_onnxruntime(content, feeds)[0]
        np.testing.assert_allclose(found, want, atol=0.05)
