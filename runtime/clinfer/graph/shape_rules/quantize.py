"""Conversions between element types, quantisation included."""

from __future__ import annotations

from clinfer.dtypes import BY_ONNX
from clinfer.graph.shape_call import Call, Rule, Type


def cast(call: Call) -> list[Type]:
    """Cast: the element type numbered `to`."""
    return [Type(BY_ONNX[int(call.attr("to", 1))].name, call.node.required(0).shape)]


def cast_like(call: Call) -> list[Type]:
    """CastLike: the element type of input 1."""
    return [Type(call.dtype(1), call.node.required(0).shape)]


def quantize(call: Call) -> list[Type]:
    """QuantizeLinear: the zero point's type, else `output_dtype`, else uint8."""
    number = int(call.attr("output_dtype", 0))
    dtype = BY_ONNX[number].name if number else "uint8"
    return [Type(call.dtype(2) if call.has(2) else dtype, call.node.required(0).shape)]


def dequantize(call: Call) -> list[Type]:
    """DequantizeLinear: the scale's type, else `output_dtype`."""
    number = int(call.attr("output_dtype", 0))
    dtype = BY_ONNX[number].name if number else call.dtype(1)
    return [Type(dtype, call.node.required(0).shape)]


def dynamic_quantize(call: Call) -> list[Type]:
    """DynamicQuantizeLinear: uint8 values, a scale, a zero point."""
    return [Type("uint8", call.node.required(0).shape), Type("float32", ()), Type("uint8", ())]


RULES: dict[str, Rule] = {
    "Cast": cast,
    "CastLike": cast_like,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
