"""The window of convolutions and pools: taps, strides, dilations and explicit padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinfer.graph.ir import Node
from clinfer.passes.rewrite import Refusal
from clinfer_kernels.dims import Dim


def window(node: Node, kernel: Sequence[Dim]) -> dict[str, Any] | Refusal:
    """The attributes that convolutions and pools share, with explicit padding."""
    taps = [d for d in node.attrs.get("kernel_shape", kernel) if isinstance(d, int)]
    rank = len(kernel)
    if len(taps) != rank:
        return Refusal("the size of its kernel is not known")
    strides = list(node.attrs.get("strides", [1] * rank))
    given = node.attrs.get("dilations", [1] * rank)
    dilations = [step if count > 1 else 1 for step, count in zip(given, taps, strict=True)]
    pads = _pads(node, taps, strides, dilations)
    if isinstance(pads, Refusal):
        return pads
    if any(p < 0 for p in pads):
        return Refusal("its padding is negative")
    return {"kernel": taps, "strides": strides, "pads": pads, "dilations": dilations}


def window_pads(node: Node, kernel: Sequence[Dim]) -> list[int]:
    """The explicit padding of a convolution whose sizes are known or do not matter for it."""
    attrs = window(node, kernel)
    assert not isinstance(attrs, Refusal)
    pads: list[int] = attrs["pads"]
    return pads


def _pads(
    node: Node, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int] | Refusal:
    auto = node.attrs.get("auto_pad", "NOTSET")
    rank = len(kernel)
    if node.op == "ConvTranspose" and ("output_shape" in node.attrs or auto.startswith("SAME")):
        return _transposed_pads(node, kernel, strides, dilations)
    if auto == "VALID":
        return [0] * (2 * rank)
    if not auto.startswith("SAME"):
        return list(node.attrs.get("pads", [0] * (2 * rank)))
    totals: list[int] = []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        size = node.required(0).known_shape[2 + axis]
        if strides[axis] == 1:
            totals.append(extent - 1)
        elif isinstance(size, int):
            steps = -(-size // strides[axis])
            totals.append(max((steps - 1) * strides[axis] + extent - size, 0))
        else:
            return Refusal(f"{auto} with a stride needs sizes known when the model is compiled")
    return _halves(totals, larger_end=auto == "SAME_UPPER")


def _transposed_pads(
    node: Node, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int] | Refusal:
    """Padding such that the output has the size asked for."""
    sizes = node.required(0).known_shape[2:]
    wanted = node.output.known_shape[2:]
    extra = node.attrs.get("output_padding", [0] * len(kernel))
    totals: list[int] = []
    for axis, extent in enumerate(kernel):
        size, out = sizes[axis], wanted[axis]
        if not isinstance(size, int) or not isinstance(out, int):
            return Refusal("its output size needs sizes known when the model is compiled")
        full = strides[axis] * (size - 1) + extra[axis] + (extent - 1) * dilations[axis] + 1
        totals.append(max(full - out, 0))
    return _halves(totals, larger_end=node.attrs.get("auto_pad") == "SAME_UPPER")


def _halves(totals: list[int], larger_end: bool) -> list[int]:
    """Begins, then ends; the odd element goes to the end or to the beginning."""
    smaller = [t // 2 for t in totals]
    larger = [t - t // 2 for t in totals]
    return smaller + larger if larger_end else larger + smaller
