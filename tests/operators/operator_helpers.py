"""Small models of one operator, and the sources that a model is lowered to, without a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

TARGETS = (Target(), Target(cls="gpu", vector_width=4, dialect="nvidia"))


def kind_of(schema: Any) -> str:
    """The kind of a schema's operator, as `Node.kind` has it."""
    return f"{schema.domain}.{schema.name}" if schema.domain else str(schema.name)


def model(
    op: str,
    inputs: Mapping[str, Any],
    *,
    constants: Sequence[str] = (),
    domain: str = "",
    opset: int = 18,
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node. An input is an array, or (dtype, shape) with names for sizes.

    Those in `constants` are initialisers; one named '' is absent.
    """
    infos, initialisers, names = [], [], []
    for number, (name, given) in enumerate(inputs.items()):
        absent = given is None
        names.append("" if absent else name)
        if absent:
            continue
        if name in constants:
            initialisers.append(numpy_helper.from_array(np.asarray(given), name))
        elif isinstance(given, tuple):
            infos.append(helper.make_tensor_value_info(name, given[0], given[1]))
        else:
            dtype = helper.np_dtype_to_tensor_dtype(np.asarray(given).dtype)
            infos.append(helper.make_tensor_value_info(name, dtype, np.shape(given)))
        assert number < 64
    results = [f"y{n}" for n in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, name="node", **attributes)
    made = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in results]
    imports = [helper.make_opsetid(domain, opset)]
    graph = helper.make_graph([node], "g", infos, made, initialisers)
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    for output in proto.graph.output:
        output.type.tensor_type.elem_type = _result(proto, output.name)
    return proto


def _result(proto: onnx.ModelProto, name: str) -> int:
    """The element type that ONNX infers for a result; float where it refuses the node."""
    without = onnx.ModelProto()
    without.CopyFrom(proto)
    del without.graph.output[:]
    for found in shape_inference.infer_shapes(without).graph.value_info:
        if found.name == name:
            return int(found.type.tensor_type.elem_type) or TensorProto.FLOAT
    return TensorProto.FLOAT


def sources(proto: onnx.ModelProto, target: Target) -> list[str]:
    """What would be given to the compiler: every program's text, name and options."""
    graph = read(proto).graph()
    optimise(graph, cls=target.cls)
    plan = lower(graph, target, KernelChoice()).plan
    return [text for p in plan.programs for text in (p.source, p.entry, p.options)]


def schemas() -> list[Any]:
    """Every operator of every version that clinfer reads."""
    return [s for s in defs.get_all_schemas_with_history() if not s.deprecated]
