"""Quantised operators of com.microsoft against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from contrib_helpers import EIGHT, compared, eight, found, model, numbers, scale, zero
from graph_helpers import by_onnxruntime
from onnx import helper, numpy_helper

from clinfer.errors import ClinferError
from clinfer.graph.reader import read
from clinfer_kernels.narrow import TABLES

FREE = {2: "n"}


def weights(*shape: int, dtype: Any) -> Any:
    """Numbers that ONNX Runtime multiplies exactly: it adds pairs in 16 bits on some processors."""
    return eight(*shape, dtype=dtype) if dtype is np.uint8 else eight(*shape, dtype=dtype) // 2


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("inner", [64, 80])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("extra", ["", "bias"])
def test_products_with_weights_of_few_bits(bits: int, inner: int, zeros: str, extra: str) -> None:
    if bits != 4 and zeros == "float":
        pytest.skip("ONNX Runtime has no such kernel")
    rows, size = 6, 32
    blocks = -(-inner // size)
    points = {
        "none": None,
        "packed": eight(rows, -(-blocks * bits // 8), seed=1),
        "float": numbers(rows, blocks, seed=2) + 2 ** (bits - 1),
    }
    inputs = {
        "a": numbers(2, 3, inner),
        "b": eight(rows, blocks, size * bits // 8),
        "scales": np.abs(numbers(rows, blocks)) * 0.1,
        "zeros": points[zeros],
        "groups": None,
        "bias": numbers(rows) if extra else None,
    }
    attrs = {"N": rows, "K": inner, "bits": bits, "block_size": size}
    form = {"constant": ("b", "scales", "zeros", "bias"), "free": {2: "n", 3: "s"}}
    if bits == 8:
        inputs["scales"] *= 0.1
    compared("MatMulNBits", inputs, attrs, rtol=1e-4, atol=2e-3, **form)


def test_groups_of_weights_in_any_order() -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(2), 32)).astype(np.int32)
    inputs = {
        "a": numbers(3, 64),
        "b": eight(6, 2, 16),
        "scales": np.abs(numbers(6, 2)) * 0.1,
        "zeros": None,
        "groups": groups,
    }
    attrs = {"N": 6, "K": 64, "bits": 4, "block_size": 32}
    constant = ("b", "scales", "zeros", "groups")
    compared("MatMulNBits", inputs, attrs, constant=constant, atol=1e-3)
    # ONNX Runtime takes 8 for every zero point where there are groups; its schema does not.
    inputs["zeros"] = eight(6, 1, seed=1)
    low, high = inputs["zeros"] & 15, inputs["zeros"] >> 4
    zeros = np.concatenate([low, high], 1).astype(np.float32)[:, groups]
    pairs = np.stack([inputs["b"] & 15, inputs["b"] >> 4], -1).reshape(6, 64)
    want = inputs["a"] @ ((pairs - zeros) * inputs["scales"][:, groups]).T
    content = model("MatMulNBits", inputs, attrs, constant=constant)
    np.testing.assert_allclose(found(content, inputs)[0], want, rtol=1e-4, atol=1e-4)


def test_products_in_float16() -> None:
    inputs = {
        "a": numbers(3, 64, dtype=np.float16),
        "b": eight(6, 2, 16),
        "scales": np.abs(numbers(6, 2, dtype=np.float16)) * np.float16(0.1),
    }
    attrs = {"N": 6, "K": 64, "bits": 4, "block_size": 32}
    compared("MatMulNBits", inputs, attrs, constant=("b", "scales"), rtol=1e-2, atol=3e-2)


@pytest.mark.parametrize(
    ("bits", "size", "zeros"),
    [
        *((2, 16, ""), (2, 64, "codes"), (2, 256, "codes"), (4, 16, "codes")),
        *((4, 32, "floats"), (4, 32, "groups")),
    ],
)
def test_rows_are_rounded_to_bytes_where_the_reference_does(
    bits: int, size: int, zeros: str
) -> None:
    """Accuracy level 4: results of ONNX Runtime that are not those of level 0 tell."""
    blocks = 512 // size
    packed = eight(8, -(-blocks * bits // 8))
    inputs = {
        "x": numbers(5, 512),
        "b": eight(8, blocks, size * bits // 8),
        "scales": np.abs(numbers(8 * blocks)) * 0.1,
        "zeros": {"codes": packed, "floats": np.abs(numbers(8 * blocks))}.get(zeros),
        "groups": np.repeat(np.arange(blocks, dtype=np.int32), size) if zeros == "groups" else None,
    }
    attrs = {"K": 512, "N": 8, "bits": bits, "block_size": size}
    constant = ("b", "scales", "zeros", "groups")
    exact, found_ = (
        model("MatMulNBits", inputs, attrs | {"accuracy_level": level}, constant=constant)
        for level in (0, 4)
    )
    feeds = {"x": inputs["x"]}
    (wanted,), (given,) = by_onnxruntime(exact, feeds), by_onnxruntime(found_, feeds)
    is_rounded = np.abs(wanted - given).max() > 1e-3 * np.abs(wanted).max()
    product = next(n for n in read(found_).graph().nodes if n.op == "MatMul")
    assert bool(product.attrs.get("quantised", 0)) == is_rounded


def test_weights_that_are_no_constants_are_refused() -> None:
    inputs = {"a": numbers(3, 64), "b": eight(6, 2, 16), "scales": numbers(6, 2)}
    attrs = {"N": 6, "K": 64, "bits": 4, "block_size": 32}
    with pytest.raises(ClinferError, match="input 1 must be constant"):
        read(model("MatMulNBits", inputs, attrs))
    with pytest.raises(ClinferError, match=r"input 1: \[7, 2, 16\] expected"):
        read(model("MatMulNBits", inputs, attrs | {"N": 7}, constant=("b", "scales")))


@pytest.mark.parametrize("kind", [0, 1])
def test_products_with_codes_of_4_bits(kind: int) -> None:
    inputs = {
        "a": numbers(3, 64),
        "b": eight(6 * 64 // 2),
        "largest": np.abs(numbers(6 * 64 // 32)),
    }
    attrs = {"N": 6, "K": 64, "block_size": 32, "quant_type": kind}
    compared("MatMulBnb4", inputs, attrs, constant=("b", "largest"), atol=1e-3)


@pytest.mark.parametrize(("transposed", "inner"), [(1, 40), (0, 64)])
def test_products_with_blocks_across_rows(transposed: int, inner: int) -> None:
    rows = 6
    inputs = {
        "a": numbers(3, inner if transposed else rows),
        "b": eight(rows * inner // 2),
        "largest": np.abs(numbers(-(-rows * inner // 32))),
    }
    attrs = {"N": rows, "K": inner, "block_size": 32, "quant_type": 1, "transB": transposed}
    content = model("MatMulBnb4", inputs, attrs, constant=("b", "largest"))
    table = dict(zip(range(16), TABLES["nf4"], strict=True))
    codes = np.stack([inputs["b"] >> 4, inputs["b"] & 15], -1).ravel()
    values = np.vectorize(table.get)(codes) * np.repeat(inputs["largest"], 32)[: codes.size]
    weights = values.reshape(rows, inner)
    got = found(content, {"a": inputs["a"]})[0]
    want = inputs["a"] @ (weights.T if transposed else weights)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_tables_behind_views_and_indices_outside() -> None:
    """The table that a product shares is reshaped first; an index outside finds zeros."""
    inputs = {
        "data": eight(5, 24),
        "indices": np.array([[0, 7], [-5, -6]], np.int64),
        "scales": numbers(5, 3),
        "zeros": eight(5, 2, seed=1),
    }
    attrs = {"bits": 4, "block_size": 16, "quantize_axis": 1, "gather_axis": 0}
    form: dict[str, Any] = {"constant": ("data", "scales", "zeros"), "types": {"y0": 1}}
    content = model("GatherBlockQuantized", inputs, attrs, **form)
    want = by_onnxruntime(content, {"indices": inputs["indices"]})[0]
    flat, shape = content.graph.initializer[0], helper.make_node("Reshape", ["flat", "s"], ["data"])
    flat.name = "flat"
    del flat.dims[:]
    flat.dims.extend([120])
    content.graph.initializer.append(numpy_helper.from_array(np.array([5, 24]), "s"))
    content.graph.node.insert(0, shape)
    got = found(content, {"indices": inputs["indices"]})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert not got[0, 1].any()
    assert not got[1, 1].any()
    assert got[1, 0].any()


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("size", [0, 16])
def test_tables_of_floats_of_8_bits(dtype: Any, size: int) -> None:
    inputs = {
        "data": numbers(5, 40).astype(dtype),
        "indices": np.array([3, 0], np.int64),
        "scales": numbers(5, 3 if size else 1),
    }
    attrs = {"block_size": size, "quantize_axis": 1, "gather_axis": 0}
    form: dict[str, Any] = {"constant": ("data", "scales"), "types": {"y0": 1}}
    compared("GatherBlockQuantized", inputs, attrs, **form)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 1), (1, 2)])
def test_tables_along_any_axis(dtype: Any, axes: tuple[int, int]) -> None:
    along, cut = axes
    rank, shape = 1 + max(axes), [5, 6, 7][: 1 + max(axes)]
    shape[cut] = 40
    blocks = [3 if axis == cut else size for axis, size in enumerate(shape)]
    rng = np.random.default_rng(rank)
    inputs = {
        "data": rng.integers(0, 7, shape).astype(dtype),
        "indices": np.array([[3, 0]], np.int64),
        "scales": numbers(*blocks),
        "zeros": rng.integers(0, 7, blocks).astype(dtype),
    }
    attrs = {"block_size": 16, "gather_axis": along, "quantize_axis": cut}
    form: dict[str, Any] = {"constant": ("data", "scales", "zeros"), "types": {"y0": 1}}
    compared("GatherBlockQuantized", inputs, attrs, **form)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_lookups_of_blocks(bits: int, zeros: bool, axis: int) -> None:
    count = 8 // bits
    blocks = 3
    if axis and bits < 8:
        pytest.skip("ONNX Runtime gathers packed numbers along the first axis only")
    inputs = {
        "data": eight(5, 48 // count),
        "indices": np.array([[0, 3], [4, -1]], np.int64),
        "scales": numbers(5, blocks),
        "zeros": eight(5, -(-blocks // count), seed=1) if zeros else None,
    }
    attrs = {"bits": bits, "block_size": 16, "quantize_axis": 1, "gather_axis": 0}
    constant = ("data", "scales", "zeros")
    compared("GatherBlockQuantized", inputs, attrs, constant=constant, types={"y0": 1})


@EIGHT
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary_operators(dtype: Any, op: str) -> None:
    inputs = {
        "a": eight(2, 3, 8, dtype=dtype),
        "as": scale(0.05),
        "az": zero(7, dtype),
        "b": eight(3, 1, dtype=dtype),
        "bs": scale(0.03),
        "bz": zero(3, dtype),
        "cs": scale(0.1),
        "cz": zero(11, dtype),
    }
    compared(op, inputs, free=FREE, atol=1)


UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("QLinearSigmoid", {}),
    "leaky": ("QLinearLeakyRelu", {"alpha": 0.2}),
    "softmax": ("QLinearSoftmax", {"opset": 13, "axis": 1}),
    "softmax of old": ("QLinearSoftmax", {"opset": 11, "axis": 1}),
    "pool": ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "padded pool": ("QLinearAveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "counted": (
        "QLinearAveragePool",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
    ),
    "counted beyond": (
        "QLinearAveragePool",
        {
            "kernel_shape": [3, 3],
            "strides": [5, 4],
            "pads": [1, 0, 0, 0],
            "count_include_pad": 1,
            "ceil_mode": 1,
        },
    ),
    "last": ("QLinearAveragePool", {"kernel_shape": [2, 2], "channels_last": 1}),
    "global": ("QLinearGlobalAveragePool", {}),
    "global last": ("QLinearGlobalAveragePool", {"channels_last": 1}),
}


@EIGHT
@pytest.mark.parametrize("name", UNARY)
def test_unary_operators(dtype: Any, name: str) -> None:
    op, attrs = UNARY[name]
    inputs = {
        "x": eight(2, 4, 6, 6, dtype=dtype),
        "xs": scale(0.05),
        "xz": zero(7, dtype),
        "ys": scale(1 / 256 if "Soft" in op or "Sig" in op else 0.04),
        "yz": zero(-128 if dtype is np.int8 and "Soft" in op else 0, dtype),
    }
    constant = ("xs", "xz", "ys", "yz")
    compared(op, inputs, attrs, free=FREE, atol=1, constant=constant)


def test_softmax_takes_the_whole_part_of_the_inverse_scale() -> None:
    """As ONNX Runtime: 254 for a scale of 1 / 255. Few numbers lie where rounding may differ."""
    inputs = {
        "x": eight(400, 6),
        "xs": scale(0.03),
        "xz": zero(0, np.uint8),
        "ys": scale(1 / 255),
        "yz": zero(0, np.uint8),
    }
    content = model("QLinearSoftmax", inputs, {"opset": 13}, constant=("xs", "xz", "ys", "yz"))
    feeds = {"x": inputs["x"]}
    assert (found(content, feeds)[0] == by_onnxruntime(content, feeds)[0]).mean() > 0.999


@EIGHT
def test_concatenation_and_choice(dtype: Any) -> None:
    parts = {
        "ys": scale(0.1),
        "yz": zero(5, dtype),
        "a": eight(2, 3, dtype=dtype),
        "as": scale(0.05),
        "az": zero(3, dtype),
        "b": eight(2, 4, dtype=dtype),
        "bs": scale(0.2),
        "bz": zero(4, dtype),
    }
    kind = 2 if dtype is np.uint8 else 3
    constant = ("ys", "yz", "as", "az", "bs", "bz")
    compared("QLinearConcat", parts, {"axis": 1}, types={"y0": kind}, atol=1, constant=constant)
    inputs = {
        "c": np.array([[True], [False]]),
        "a": parts["a"],
        "as": scale(0.05),
        "az": zero(3, dtype),
        "b": eight(2, 3, dtype=dtype, seed=1),
        "bs": scale(0.2),
        "bz": zero(4, dtype),
        "ys": scale(0.1),
        "yz": zero(5, dtype),
    }
    compared("QLinearWhere", inputs, types={"y0": kind}, atol=1, constant=constant)


@EIGHT
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("trans", [(0, 0), (1, 1)])
@pytest.mark.parametrize("real", [False, True])
def test_gemm(dtype: Any, columns: bool, trans: tuple[int, int], real: bool) -> None:
    a, b = eight(2, 4, dtype=np.uint8), weights(4, 5, dtype=dtype)
    inputs = {
        "a": a.T.copy() if trans[0] else a,
        "as": scale(0.05),
        "az": zero(7, np.uint8),
        "b": b.T.copy() if trans[1] else b,
        "bs": np.abs(numbers(5)) * np.float32(0.1) if columns else scale(0.1),
        "bz": eight(5, dtype=dtype) if columns else zero(3, dtype),
        "c": np.arange(5, dtype=np.int32) * 100,
    }
    if not real:
        inputs |= {"ys": scale(2.0), "yz": zero(100, np.uint8)}
    attrs = {"transA": trans[0], "transB": trans[1], "alpha": 0.5}
    types = {"y0": 1 if real else 2}
    compared("QGemm", inputs, attrs, types=types, atol=1e-4 if real else 1, free=FREE)


@EIGHT
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("optional", [False, True])
def test_products_of_integers_as_floats(dtype: Any, columns: bool, optional: bool) -> None:
    scales = np.abs(numbers(5)) * np.float32(0.1) if columns else scale(0.1)
    zeros = eight(5, dtype=dtype) if columns else zero(3, dtype)
    inputs = {
        "a": numbers(2, 3, 4),
        "b": weights(4, 5, dtype=dtype),
        "bs": scales,
        "bz": zeros if optional else None,
        "bias": numbers(5) if optional else None,
    }
    constant = ("b", "bs", "bz", "bias")
    compared("DynamicQuantizeMatMul", inputs, free=FREE, constant=constant, atol=1e-3)
    inputs = {
        "a": eight(2, 3, 4),
        "b": inputs["b"],
        "as": scale(0.05),
        "bs": scales,
        "az": zero(100, np.uint8) if optional else None,
        "bz": inputs["bz"],
        "bias": inputs["bias"],
    }
    compared("MatMulIntegerToFloat", inputs, free=FREE, types={"y0": 1}, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantisation_and_back(dtype: Any, axis: int | None) -> None:
    wide = np.abs(numbers(4)) + np.float32(0.1) if axis else scale(0.1)
    zeros = np.arange(4).astype(dtype) if axis else zero(3, dtype)
    attrs = {} if axis is None else {"axis": axis}
    kinds = {np.int8: 3, np.uint8: 2, np.int16: 5, np.uint16: 4}
    inputs = {"x": numbers(2, 4, 3), "s": wide, "z": zeros}
    compared("QuantizeLinear", inputs, attrs, types={"y0": kinds[dtype]}, free=FREE)
    inputs = {"x": eight(2, 4, 3, dtype=dtype), "s": wide, "z": zeros}
    compared("DequantizeLinear", inputs, attrs, types={"y0": 1}, free=FREE)


@EIGHT
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_quantised_attention(dtype: Any, past: bool, columns: bool) -> None:
    heads, size = 2, 8
    width = 3 * heads * size
    inputs = {
        "x": eight(2, 3, 16),
        "w": weights(16, width, dtype=dtype),
        "b": numbers(width),
        "xs": scale(0.02),
        "ws": np.abs(numbers(width)) * np.float32(0.01) if columns else scale(0.01),
        "mask": np.ones((2, 8 if past else 3), np.int32),
        "xz": zero(120, np.uint8),
        "wz": zero(2, dtype),
    }
    inputs["mask"][0, 0] = 0
    if columns:
        inputs["wz"] = eight(width, dtype=dtype)
    if past:
        inputs["past"] = numbers(2, 2, heads, 5, size)
    form = {"constant": ("w", "b", "xs", "ws", "xz", "wz"), "outputs": 2 if past else 1}
    attrs = {"num_heads": heads, "unidirectional": int(past)}
    types = {"y0": 1, "y1": 1}
    compared("QAttention", inputs, attrs, types=types, free={3: "s", 5: "p"}, atol=1e-3, **form)


def test_pooling_and_convolution_with_channels_last() -> None:
    x = eight(2, 5, 5, 4)
    compared("NhwcMaxPool", {"x": x}, {"kernel_shape": [2, 2], "strides": [2, 1]}, free=FREE)
    inputs = {
        "x": x,
        "xs": scale(0.05),
        "xz": zero(7, np.uint8),
        "w": weights(6, 4, 3, 3, dtype=np.int8),
        "ws": np.abs(numbers(6)) * np.float32(0.1),
        "wz": np.zeros(6, np.int8),
        "ys": scale(0.4),
        "yz": zero(100, np.uint8),
        "b": np.arange(6, dtype=np.int32) * 10,
    }
    attrs = {"channels_last": 1, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    constant = tuple(inputs)[1:]
    compared("QLinearConv", inputs, attrs, free=FREE, constant=constant, atol=1)


def test_means_of_quantised_numbers() -> None:
    inputs = {
        "x": eight(2, 4, 6),
        "xs": scale(0.05),
        "xz": zero(7, np.uint8),
        "ys": scale(0.04),
        "yz": zero(3, np.uint8),
    }
    got = found(model("QLinearReduceMean", inputs, {"axes": [1], "keepdims": 0}), inputs)[0]
    mean = ((inputs["x"].astype(np.float32) - 7) * 0.05).mean(1)
    want = np.clip(np.rint(mean / np.float32(0.04)) + 3, 0, 255)
    assert np.abs(got.astype(int) - want).max() <= 1
