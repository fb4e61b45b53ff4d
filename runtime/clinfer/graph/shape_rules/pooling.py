"""Convolution, its gradient form, and pooling: sliding windows over spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinfer.graph.ir import Shape
from clinfer.graph.shape_call import Call, Rule, Type, UnknownShape
from clinfer_kernels.dims import Dim, ceildiv, floordiv, minimum, product


@dataclass(frozen=True)
class Window:
    """How a window moves over the spatial dimensions; pads are begins, then ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str
    ceil: bool = False

    @classmethod
    def of(cls, call: Call, kernel: Sequence[int]) -> Window:
        """The window a node's attributes describe."""
        rank = len(kernel)
        return cls(
            tuple(kernel),
            tuple(call.attr("strides") or [1] * rank),
            tuple(call.attr("pads") or [0] * (2 * rank)),
            tuple(call.attr("dilations") or [1] * rank),
            str(call.attr("auto_pad", "NOTSET")),
            bool(call.attr("ceil_mode", 0)),
        )

    def extent(self, axis: int) -> int:
        """How many input elements the window spans."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def output(self, axis: int, size: Dim) -> Dim:
        """How many positions the window takes along a spatial axis of the input."""
        stride = self.strides[axis]
        if self.auto_pad.startswith("SAME"):
            return ceildiv(size, stride)
        begin, end = self._padding(axis)
        room = size + (begin + end - self.extent(axis))
        if not self.ceil:
            return floordiv(room, stride) + 1
        # The last window must start inside the input or the padding before it.
        return _smaller(ceildiv(room, stride) + 1, ceildiv(size + begin, stride))

    def gradient_output(self, axis: int, size: Dim, extra: int) -> Dim:
        """The size a transposed convolution gives a spatial axis."""
        stride = self.strides[axis]
        if self.auto_pad.startswith("SAME"):
            return size * stride
        begin, end = self._padding(axis)
        return (size - 1) * stride + (extra + self.extent(axis) - begin - end)

    def _padding(self, axis: int) -> tuple[int, int]:
        if self.auto_pad == "VALID":
            return 0, 0
        return self.pads[axis], self.pads[axis + len(self.kernel)]


def _smaller(a: Dim, b: Dim) -> Dim:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else minimum(a, b)


def _spatial(call: Call, window: Window, source: Shape) -> Shape:
    sizes = tuple(window.output(axis, size) for axis, size in enumerate(source[2:]))
    if any(isinstance(s, int) and s < 0 for s in sizes):
        raise call.error(f"the kernel {list(window.kernel)} does not fit into the padded input")
    return sizes


def _kernel(call: Call, weights: Shape) -> list[int]:
    sizes = call.attr("kernel_shape") or list(weights[2:])
    if not all(isinstance(s, int) for s in sizes):
        raise UnknownShape
    return [int(s) for s in sizes]


def convolution(data: int, weights: int, dtype: str | None = None, like: int = 0) -> Rule:
    """The rule of a convolution whose data and weights are these inputs."""

    def rule(call: Call) -> list[Type]:
        source, kernel = call.shape(data), call.shape(weights)
        groups = int(call.attr("group", 1))
        call.equal(source[1], kernel[1] * groups, "the channels of data and weights")
        window = Window.of(call, _kernel(call, kernel))
        result = (source[0], kernel[0], *_spatial(call, window, source))
        return [Type(dtype or call.dtype(like), result)]

    return rule


def conv_transpose(call: Call) -> list[Type]:
    """ConvTranspose: [N, M, ...], sizes from `output_shape` if given."""
    source, weights = call.shape(0), call.shape(1)
    window = Window.of(call, _kernel(call, weights))
    channels = weights[1] * int(call.attr("group", 1))
    given = call.attr("output_shape")
    extra = call.attr("output_padding") or [0] * len(window.kernel)
    if given:
        return [Type(call.dtype(0), (source[0], channels, *given[-len(window.kernel) :]))]
    sizes = [window.gradient_output(i, size, extra[i]) for i, size in enumerate(source[2:])]
    return [Type(call.dtype(0), (source[0], channels, *sizes))]


def pool(call: Call) -> list[Type]:
    """MaxPool (with indices), AveragePool, LpPool."""
    source = call.shape(0)
    window = Window.of(call, call.attr("kernel_shape") or [])
    result = (source[0], source[1], *_spatial(call, window, source))
    return [Type(call.dtype(0), result), Type("int64", result)]


def global_pool(call: Call) -> list[Type]:
    """Global pooling: [N, C, 1, ...]."""
    source = call.shape(0)
    return [Type(call.dtype(0), (source[0], source[1], *[1] * (len(source) - 2)))]


def max_unpool(call: Call) -> list[Type]:
    """MaxUnpool: the size MaxPool started from, or the one in input 2."""
    if call.has(2):
        return [Type(call.dtype(0), tuple(call.dims(2)))]
    source = call.shape(0)
    window = Window.of(call, call.attr("kernel_shape") or [])
    sizes = [window.gradient_output(i, size, 0) for i, size in enumerate(source[2:])]
    return [Type(call.dtype(0), (source[0], source[1], *sizes))]


def col2im(call: Call) -> list[Type]:
    """Col2Im: [N, C * block, blocks] as [N, C, image...]; input 1 is the image, 2 the block."""
    source, image, block = call.shape(0), call.dims(1), call.dims(2)
    return [Type(call.dtype(0), (source[0], floordiv(source[1], product(block)), *image))]


RULES: dict[str, Rule] = {
    "Conv": convolution(0, 1),
    "ConvInteger": convolution(0, 1, "int32"),
    "QLinearConv": convolution(0, 3, like=7),
    "DeformConv": convolution(0, 1),
    "ConvTranspose": conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    "MaxUnpool": max_unpool,
    "Col2Im": col2im,
}
