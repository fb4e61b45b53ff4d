"""ResNet-50, MobileNetV2 and YOLOv8n as ONNX files, without a framework: for measurements.

    python tools/convolution_models.py FOLDER [NAME ...]

Structure and sizes are those of torchvision's and Ultralytics' exports (batch norms folded into
convolutions). Weights are normal with He's variance, those of convolutions that end a residual
branch smaller, so that values keep their size through the layers and quantisation has something
to round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

_OPSET = 17


class Builder:
    """Nodes in order, with random weights; values are named by operator and number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one result; its name."""
        return self.many(op, 1, *inputs, **attributes)[0]

    def many(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node of `count` results; their names."""
        label = f"{op.lower()}_{len(self.nodes)}"
        results = [f"{label}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=label, **attributes))
        return results

    def constant(self, array: Any, dtype: str = "float32") -> str:
        """An initialiser."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def convolution(
        self,
        x: str,
        channels: tuple[int, int],
        size: int,
        stride: int = 1,
        groups: int = 1,
        gain: float = 2.0,
    ) -> str:
        """With a bias and 'same' padding; `channels` of x and of the result."""
        read, made = channels
        shape = (made, read // groups, size, size)
        deviation = (gain / (shape[1] * size * size)) ** 0.5
        weights = self.constant(self.rng.standard_normal(shape) * deviation)
        bias = self.constant(self.rng.standard_normal(made) * 0.1)
        around = [size // 2] * 4
        return self(
            "Conv",
            x,
            weights,
            bias,
            kernel_shape=[size] * 2,
            strides=[stride] * 2,
            pads=around,
            group=groups,
        )

    def linear(self, x: str, rows: int, columns: int) -> str:
        """Gemm with a bias."""
        weights = self.rng.standard_normal((columns, rows)) / rows**0.5
        bias = self.constant(np.zeros(columns))
        return self("Gemm", x, self.constant(weights), bias, transB=1)

    def model(self, size: int, results: Sequence[str]) -> onnx.ModelProto:
        """The model of one picture of `size` x `size`."""
        picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, size, size))
        outs = []
        for result in results:
            value = helper.make_empty_tensor_value_info(result)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            outs.append(value)
        graph = helper.make_graph(self.nodes, "model", [picture], outs, self.constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def resnet50() -> onnx.ModelProto:
    """He et al. 2015, the version with strides in the 3 x 3 convolutions, on 224 x 224."""
    b = Builder()
    x = b("Relu", b.convolution("images", (3, 64), 7, 2))
    x = b("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = 64
    for blocks, width, first in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = b("Relu", b.convolution(x, (before, width), 1))
            y = b("Relu", b.convolution(y, (width, width), 3, stride))
            y = b.convolution(y, (width, 4 * width), 1, gain=0.2)
            if block == 0:
                x = b.convolution(x, (before, 4 * width), 1, stride, gain=1.0)
            x = b("Relu", b("Add", y, x))
            before = 4 * width
    x = b("Flatten", b("GlobalAveragePool", x), axis=1)
    return b.model(224, [b.linear(x, before, 1000)])


def mobilenet_v2() -> onnx.ModelProto:
    """Sandler et al. 2018 of width 1, on 224 x 224."""
    b = Builder()
    zero, six = b.constant(0), b.constant(6)

    def clipped(x: str) -> str:
        return b("Clip", x, zero, six)

    x = clipped(b.convolution("images", (3, 32), 3, 2))
    before = 32
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, made, blocks, first in settings:
        for block in range(blocks):
            wide = before * expand
            stride = first if block == 0 else 1
            y = x if expand == 1 else clipped(b.convolution(x, (before, wide), 1))
            y = clipped(b.convolution(y, (wide, wide), 3, stride, wide))
            joins = stride == 1 and before == made
            y = b.convolution(y, (wide, made), 1, gain=0.3 if joins else 1.0)
            x = b("Add", x, y) if joins else y
            before = made
    x = clipped(b.convolution(x, (before, 1280), 1))
    x = b("Flatten", b("GlobalAveragePool", x), axis=1)
    return b.model(224, [b.linear(x, 1280, 1000)])


def yolov8n() -> onnx.ModelProto:
    """Ultralytics' YOLOv8n for 80 classes on 640 x 640: 84 numbers for each of 8,400 boxes."""
    b = Builder()
    one, three = (lambda x, io, s=1: conv(x, io, 1, s)), (lambda x, io, s=1: conv(x, io, 3, s))

    def conv(x: str, channels: tuple[int, int], size: int, stride: int) -> str:
        y = b.convolution(x, channels, size, stride, gain=2.8)
        return b("Mul", y, b("Sigmoid", y))

    def c2f(x: str, channels: tuple[int, int], count: int, joins: bool) -> str:
        half = channels[1] // 2
        y = one(x, (channels[0], 2 * half))
        parts = b.many("Split", 2, y, b.constant([half, half], "int64"), axis=1)
        for _ in range(count):
            inner = three(three(parts[-1], (half, half)), (half, half))
            parts.append(b("Add", parts[-1], inner) if joins else inner)
        return one(b("Concat", *parts, axis=1), ((2 + count) * half, channels[1]))

    def pooled(x: str) -> str:
        return b("MaxPool", x, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])

    def sppf(x: str, channels: int) -> str:
        parts = [one(x, (channels, channels // 2))]
        for _ in range(3):
            parts.append(pooled(parts[-1]))
        return one(b("Concat", *parts, axis=1), (channels * 2, channels))

    scales = b.constant([1, 1, 2, 2])

    def twice(x: str) -> str:
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return b("Resize", x, "", scales, mode="nearest", **how)

    x = three(three("images", (3, 16), 2), (16, 32), 2)
    x = three(c2f(x, (32, 32), 1, True), (32, 64), 2)
    fine = c2f(x, (64, 64), 2, True)
    middle = c2f(three(fine, (64, 128), 2), (128, 128), 2, True)
    coarse = sppf(c2f(three(middle, (128, 256), 2), (256, 256), 1, True), 256)
    up = c2f(b("Concat", twice(coarse), middle, axis=1), (384, 128), 1, False)
    small = c2f(b("Concat", twice(up), fine, axis=1), (192, 64), 1, False)
    down = b("Concat", three(small, (64, 64), 2), up, axis=1)
    medium = c2f(down, (192, 128), 1, False)
    down = b("Concat", three(medium, (128, 128), 2), coarse, axis=1)
    large = c2f(down, (384, 256), 1, False)
    levels = ((small, 64, 80), (medium, 128, 40), (large, 256, 20))
    return b.model(640, [_detections(b, three, levels)])


def _detections(
    b: Builder, three: Callable[..., str], levels: Sequence[tuple[str, int, int]]
) -> str:
    """The head: distances as expectations over 16 bins, boxes around anchors, class scores."""
    rows = []
    for x, channels, _ in levels:
        boxes = three(three(x, (channels, 64)), (64, 64))
        classes = three(three(x, (channels, 80)), (80, 80))
        both = b(
            "Concat",
            b.convolution(boxes, (64, 64), 1, gain=1.0),
            b.convolution(classes, (80, 80), 1, gain=1.0),
            axis=1,
        )
        rows.append(b("Reshape", both, b.constant([1, 144, -1], "int64")))
    every = b("Concat", *rows, axis=2)
    boxes, classes = b.many("Split", 2, every, b.constant([64, 80], "int64"), axis=1)
    bins = b("Reshape", boxes, b.constant([1, 4, 16, 8400], "int64"))
    shares = b("Softmax", b("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    steps = b.constant(np.arange(16).reshape(1, 16, 1, 1))
    distances = b("Reshape", b("Conv", shares, steps), b.constant([1, 4, 8400], "int64"))
    near, far = b.many("Split", 2, distances, b.constant([2, 2], "int64"), axis=1)
    centres, strides = [], []
    for _, _, side in levels:
        y, x = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(side * side, 640 // side))
    anchors = b.constant(np.concatenate(centres, axis=1)[None])
    low, high = b("Sub", anchors, near), b("Add", anchors, far)
    middle = b("Div", b("Add", low, high), b.constant(2))
    boxes = b("Concat", middle, b("Sub", high, low), axis=1)
    scaled = b("Mul", boxes, b.constant(np.concatenate(strides)[None, None]))
    return b("Concat", scaled, b("Sigmoid", classes), axis=1)


MODELS = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "yolov8n": yolov8n}


def main() -> None:
    """Writes the models asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        onnx.save(MODELS[name](), options.folder / f"{name}.onnx")


if __name__ == "__main__":
    main()
