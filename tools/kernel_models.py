"""Three architectures at full size for tools/kernel_bars.py, and the launches of a model.

What counts here is structure and size: weights of one shape share one array, which nothing reads,
but for products of one value, which would be the same product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from clinfer.graph.reader import read
from clinfer.lowering.binding import bind_inputs, bind_launch
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import LaunchStep, Plan
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

_HIDDEN, _HEADS, _INNER, _LAYERS = 768, 12, 3072, 12
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # ResNet-50: blocks, width, stride


@dataclass(frozen=True)
class Step:
    """A launch with its sizes bound: `groups` of `items` work-items; `nbytes` of its buffers, each
    once; `flops` multiplications and additions."""

    label: str
    entry: str
    source: str
    options: str
    groups: int
    items: int
    flops: int
    nbytes: int


@dataclass(frozen=True)
class Launches:
    """Of one inference; `host`: steps that run on the host."""

    steps: tuple[Step, ...]
    host: int


class Builder:
    """Nodes in order; `weight` gives one array for each shape."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; its result."""
        result = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [result], name=result, **attributes))
        return result

    def weight(self, *shape: int, number: int = 0) -> str:
        """A float32 constant; `number` tells those of one shape apart."""
        name = f"w_{'x'.join(map(str, shape))}_{number}"
        if name not in self.initialisers:
            content = np.full(shape, 1 / (64 + number), np.float32)
            self.initialisers[name] = onnx.numpy_helper.from_array(content, name)
        return name

    def constant(self, value: Any, dtype: str = "int64") -> str:
        """A small constant."""
        array = np.asarray(value, dtype)
        name = f"c_{dtype}_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}"
        self.initialisers[name] = onnx.numpy_helper.from_array(array, name)
        return name

    def model(
        self, inputs: Sequence[tuple[str, int, Sequence[int | str]]], result: str
    ) -> onnx.ModelProto:
        """The model, with one float32 result."""
        value = helper.make_tensor_value_info
        ports = [value(name, kind, shape) for name, kind, shape in inputs]
        out = helper.make_empty_tensor_value_info(result)
        out.type.tensor_type.elem_type = TensorProto.FLOAT
        constants = list(self.initialisers.values())
        graph = helper.make_graph(self.nodes, "model", ports, [out], constants)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    # parts of transformers

    def linear(self, x: str, rows: int, columns: int, number: int = 0) -> str:
        """x W + b."""
        weight = self.weight(rows, columns, number=number)
        return self("Add", self("MatMul", x, weight), self.weight(columns))

    def norm(self, x: str) -> str:
        """Layer normalisation."""
        scale = self.weight(_HIDDEN)
        return self("LayerNormalization", x, scale, scale, axis=-1, epsilon=1e-12)

    def attention(self, x: str, mask: str | None) -> str:
        """Multi-head attention with its three projections, without the output's."""
        split = self.constant([0, 0, _HEADS, _HIDDEN // _HEADS])

        def heads(order: Sequence[int], number: int) -> str:
            projected = self("Reshape", self.linear(x, _HIDDEN, _HIDDEN, number), split)
            return self("Transpose", projected, perm=order)

        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        queries, keys, values = (heads(order, n + 1) for n, order in enumerate(orders))
        scale = self.constant(float(np.sqrt(_HIDDEN // _HEADS)), "float32")
        scores = self("Div", self("MatMul", queries, keys), scale)
        if mask is not None:
            scores = self("Add", scores, mask)
        mixed = self("MatMul", self("Softmax", scores, axis=-1), values)
        joined = self("Transpose", mixed, perm=[0, 2, 1, 3])
        return self("Reshape", joined, self.constant([0, 0, _HIDDEN]))

    def feed_forward(self, x: str) -> str:
        """Two products with a GELU between, as PyTorch writes it."""
        inner = self.linear(x, _HIDDEN, _INNER)
        root, one, half = (self.constant(v, "float32") for v in (2**0.5, 1.0, 0.5))
        error = self("Add", self("Erf", self("Div", inner, root)), one)
        return self.linear(self("Mul", self("Mul", inner, error), half), _INNER, _HIDDEN)

    def convolution(self, x: str, channels: Sequence[int], size: int, stride: int = 1) -> str:
        """With a bias; 'same' padding. `channels`: of the results, of x."""
        weights = self.weight(*channels, size, size), self.weight(channels[0])
        around = [size // 2] * 4
        return self("Conv", x, *weights, strides=[stride] * 2, pads=around)


def bert_base(batch: int | str = "batch") -> onnx.ModelProto:
    """BERT-base, an encoder with a mask; both dimensions free."""
    b = Builder()
    shape = (batch, "sequence")
    x = b("Gather", b.weight(30522, _HIDDEN), "input_ids", axis=0)
    x = b.norm(x)
    wide = b("Unsqueeze", b("Cast", "attention_mask", to=TensorProto.FLOAT), b.constant([1, 2]))
    inverse = b("Sub", b.constant(1.0, "float32"), wide)
    mask = b("Mul", inverse, b.constant(-10000.0, "float32"))
    for _ in range(_LAYERS):
        attended = b.linear(b.attention(x, mask), _HIDDEN, _HIDDEN)
        x = b.norm(b("Add", attended, x))
        x = b.norm(b("Add", b.feed_forward(x), x))
    inputs = [(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    return b.model(inputs, x)


def vit_base(batch: int) -> onnx.ModelProto:
    """ViT-B/16 on 224 x 224."""
    b = Builder()
    weights = b.weight(_HIDDEN, 3, 16, 16), b.weight(_HIDDEN)
    patches = b("Conv", "pixels", *weights, strides=[16, 16])
    patches = b("Reshape", patches, b.constant([0, 0, -1]))
    first = b("Expand", b.weight(1, 1, _HIDDEN), b.constant([batch, 1, _HIDDEN]))
    x = b("Concat", first, b("Transpose", patches, perm=[0, 2, 1]), axis=1)
    x = b("Add", x, b.weight(1, 197, _HIDDEN))
    for _ in range(_LAYERS):
        attended = b.linear(b.attention(b.norm(x), None), _HIDDEN, _HIDDEN)
        x = b("Add", attended, x)
        x = b("Add", b.feed_forward(b.norm(x)), x)
    token = b("Gather", b.norm(x), b.constant(0), axis=1)
    logits = b.linear(token, _HIDDEN, 1000)
    return b.model([("pixels", TensorProto.FLOAT, (batch, 3, 224, 224))], logits)


def resnet50(batch: int) -> onnx.ModelProto:
    """ResNet-50 on 224 x 224, batch norms folded."""
    b = Builder()
    x = b("Relu", b.convolution("pixels", (64, 3), 7, 2))
    x = b("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = 64
    for blocks, width, first in _STAGES:
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = b("Relu", b.convolution(x, (width, before), 1))
            y = b("Relu", b.convolution(y, (width, width), 3, stride))
            y = b.convolution(y, (4 * width, width), 1)
            if block == 0:
                x = b.convolution(x, (4 * width, before), 1, stride)
            x = b("Relu", b("Add", y, x))
            before = 4 * width
    x = b("Flatten", b("GlobalAveragePool", x), axis=1)
    logits = b("Gemm", x, b.weight(1000, before), b.weight(1000), transB=1)
    return b.model([("pixels", TensorProto.FLOAT, (batch, 3, 224, 224))], logits)


MODELS: Mapping[str, Callable[[int], onnx.ModelProto]] = {
    "bert_base": lambda batch: bert_base(),
    "resnet50": resnet50,
    "vit_base": vit_base,
}


def plan_of(model: Path | onnx.ModelProto, target: Target) -> Plan:
    """The plan that a target gets."""
    graph = read(model).graph()
    optimise(graph, cls=target.cls, features=target.features)
    return lower(graph, target, KernelChoice()).plan


def launches_of(plan: Plan, sizes: Mapping[str, int]) -> Launches:
    """The plan's launches for the sizes of free dimensions; those not named are 1.

    Launches whose sizes only a host step gives are counted as steps of the host.
    """
    shapes = [
        None
        if port.shape is None
        else tuple(d if isinstance(d, int) else sizes.get(str(d), 1) for d in port.shape)
        for port in plan.inputs
    ]
    bound = bind_inputs(plan, shapes)
    steps, host = [], 0
    for step in plan.steps:
        found = _bound(plan, step, bound) if isinstance(step, LaunchStep) else None
        if found is None:
            host += 1
        elif found.groups:
            steps.append(found)
    return Launches(tuple(steps), host)


def _bound(plan: Plan, step: LaunchStep, sizes: Any) -> Step | None:
    try:
        launch = bind_launch(step, sizes)
        touched = {value for kind, value in launch.args if kind == "buffer"}
        each = [plan.buffers[number].nbytes(sizes) for number in touched]
        written = sum(plan.buffers[number].nbytes(sizes) for number in step.writes)
    except KeyError:
        return None
    program = plan.programs[launch.program]
    # A gather reads as many elements of its table as it writes, not the whole table.
    nbytes = 3 * written if program.entry.startswith("gather") else sum(each)
    items = prod(launch.local_size)
    groups = prod(launch.global_size) // max(1, items)
    facts = (program.entry, program.source, program.options)
    return Step(launch.label, *facts, groups, items, launch.flops, min(nbytes, sum(each)))
