"""Weights of few bits stay so in memory and in blobs, whatever the format, and mean the same."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

import clinfer
from clinfer.graph.reader import read
from graph.graph_helpers import run

K, N, B = 512, 256, 32
FLOAT = onnx.TensorProto.FLOAT
INTEGERS = {"int8": (-127, 128), "uint8": (0, 256), "int4": (-8, 8), "uint4": (0, 16)}


class Weights:
    """A model of products with one input, each with weights of another format."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.results: list[str] = []
        self.rng = np.random.default_rng(0)

    def given(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], domain: str = "", **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, **attrs))
        return name

    def decoded(self, op: str, codes: Any, scales: Any, turned: bool = False, **attrs: Any) -> None:
        """A product with DequantizeLinear."""
        weights = self.node("DequantizeLinear", [self.given(codes), self.given(scales)], **attrs)
        more = {"transB": 1} if turned and op == "Gemm" else {}
        if turned and op == "MatMul":
            weights = self.node("Transpose", [weights], perm=[1, 0])
        self.results.append(self.node(op, ["x", weights], **more))

    def packed(self, bits: int, zeros: bool, dtype: Any = np.float32) -> None:
        """A product of ONNX Runtime's, with a permutation of the columns where there is no zero."""
        codes = self.rng.integers(0, 256, (N, K // B, B * bits // 8)).astype(np.uint8)
        points = self.rng.integers(0, 256, (N, K // B * bits // 8)).astype(np.uint8)
        order = self.rng.permutation(np.arange(K) // B).astype(np.int32)
        inputs = ["x", self.given(codes), self.given(self.scales(N, K // B))]
        inputs += [self.given(points)] if zeros else ["", self.given(order)]
        attrs = {"N": N, "K": K, "bits": bits, "block_size": B}
        self.results.append(self.node("MatMulNBits", inputs, "com.microsoft", **attrs))

    def looked_up(self) -> None:
        """A table of ONNX Runtime's."""
        rows = self.node("Cast", [self.node("Abs", ["x"])], to=onnx.TensorProto.INT64)
        table = self.rng.integers(0, 256, (N, K // 2)).astype(np.uint8)
        inputs = [self.given(table), rows, self.given(self.scales(N, K // B))]
        attrs = {"block_size": B}
        self.results.append(self.node("GatherBlockQuantized", inputs, "com.microsoft", **attrs))

    def scales(self, *shape: int) -> Any:
        return self.rng.uniform(0.01, 0.02, shape).astype(np.float32)

    def model(self, rows: int | str = "m", inner: int = K) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, [rows, inner])],
            [helper.make_tensor_value_info(name, FLOAT, None) for name in self.results],
            self.constants,
        )
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _formats() -> Weights:
    made = Weights()
    for name, limits in INTEGERS.items():
        codes = made.rng.integers(*limits, (K, N)).astype(getattr(ml_dtypes, name, name))
        made.decoded("MatMul", codes, made.scales(K // B, N), axis=0, block_size=B)
    for name in ("float8_e4m3fn", "float8_e5m2"):
        codes = made.rng.normal(size=(N, K)).astype(getattr(ml_dtypes, name))
        made.decoded("Gemm", codes, made.scales(N), True, axis=0)
        made.decoded("MatMul", codes, made.scales(N), True, axis=0)
    for bits in (2, 4, 8):
        made.packed(bits, zeros=True)
        made.packed(bits, zeros=False)
    codes, largest = made.rng.integers(0, 256, N * K // 2), made.scales(N * K // 64)
    inputs = ["x", made.given(codes.astype(np.uint8)), made.given(largest)]
    attrs = {"N": N, "K": K, "block_size": 64, "quant_type": 1}
    made.results.append(made.node("MatMulBnb4", inputs, "com.microsoft", **attrs))
    made.looked_up()
    return made


def test_weights_of_few_bits_stay_so() -> None:
    _check(_formats().model(), "CPU")


def test_those_of_products_on_gpus(gpu: str) -> None:
    made = Weights()
    made.packed(4, zeros=True)
    made.packed(4, zeros=False)
    codes = made.rng.integers(-127, 128, (N, K)).astype(np.int8)
    made.decoded("Gemm", codes, made.scales(N), True, axis=0)
    made.looked_up()
    _check(made.model(rows=3), gpu)


def test_the_last_block_of_a_column_may_be_a_part() -> None:
    """48 rows in blocks of 32: scales and zero points are not those of two blocks of 24."""
    made = Weights()
    codes, points = (made.rng.integers(0, 16, (n, N)).astype(np.uint8) for n in (48, 2))
    scales = made.scales(2, N)
    inputs = [made.given(part) for part in (codes, scales, points)]
    weights = made.node("DequantizeLinear", inputs, axis=0, block_size=32)
    made.results.append(made.node("MatMul", ["x", weights]))
    compiled = clinfer.Core().compile_model(made.model(inner=48), "CPU")
    assert any("_q4" in program.entry for program in compiled.plan.programs)
    x = made.rng.normal(size=(3, 48)).astype(np.float32)
    zero, scale = (part.repeat(32, 0)[:48].astype(float) for part in (points, scales))
    np.testing.assert_allclose(compiled(x)[0], x @ ((codes - zero) * scale), 1e-4, 1e-4)


def _check(content: onnx.ModelProto, device: str) -> None:
    """A plan has no more bytes than the model, and gives what the operators' definitions do."""
    compiled = clinfer.Core().compile_model(content, device)
    given = sum(len(t.raw_data) for t in content.graph.initializer)
    held = sum(constant.nbytes for constant in compiled.plan.constants)
    assert held <= 1.1 * given
    x = np.random.default_rng(1).normal(size=(3, K)).astype(np.float32)
    results = compiled(x)
    graph = read(content).graph()
    for number, wanted in enumerate(run(graph, [x])):
        close = 1e-5 * np.abs(wanted).max() * K**0.5
        np.testing.assert_allclose(results[number], wanted, atol=close, err_msg=str(number))
