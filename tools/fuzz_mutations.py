"""Changes to ONNX models and to the inputs of their runs, for `fuzz_models`.

Each takes a generator of random numbers and what it changes, in place. What comes out is often no
valid model: a reader must say so, and nothing else may happen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

SIZES = (0, 1, 2, 3, 5, 7, 64, 65, 1000, 2**16, 2**31 - 1, 2**31, 2**33, 2**62, 2**63 - 1, -1, -2)
NUMBERS = (*SIZES, -(2**31), -(2**63), -3, 4, 8, 9, 16, 255, 256)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-40, float("nan"), float("inf"), -float("inf"))
WORDS = (
    "",
    "constant",
    "SAME_UPPER",
    "nearest",
    "linear",
    "sum",
    "NOTSET",
    '"); }\n#include "/etc/passwd"\n//',
    "a\0b",
    "\x1b[31m",
    "é" * 40,
    "x" * 5000,
    "../../etc/passwd",
    "%s%n{0}",
    "N",
)
TYPES = (*range(24), 99, -1)
Model = ModelProto
Change = Callable[[random.Random, Model, Sequence[Model]], None]


def mutated(rng: random.Random, seed: Model, others: Sequence[Model]) -> tuple[Model, list[str]]:
    """A copy of the model with one to four changes, and their names."""
    model = Model()
    model.CopyFrom(seed)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        change = rng.choice(CHANGES)
        try:
            change(rng, model, others)
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
        ):  # nothing there of what it changes
            continue
        done.append(change.__name__.strip("_"))
    return model, done


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _graph(rng: random.Random, model: Model) -> GraphProto:
    return rng.choice([model.graph, *_graphs(model.graph)])


def _node(rng: random.Random, model: Model) -> NodeProto:
    return rng.choice(_graph(rng, model).node)


def _names(graph: GraphProto) -> list[str]:
    made = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*made, *(i.name for i in graph.input), *(t.name for t in graph.initializer), ""]


# -- nodes -----------------------------------------------------------------------------------------


def _value(rng: random.Random, attribute: AttributeProto) -> None:
    """Another value of the same kind."""
    kinds = AttributeProto
    if attribute.type == kinds.INT:
        attribute.i = rng.choice(NUMBERS)
    elif attribute.type == kinds.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == kinds.STRING:
        attribute.s = rng.choice(WORDS).encode("latin-1", "replace")
    elif attribute.type == kinds.INTS:
        _list(rng, attribute.ints, NUMBERS)
    elif attribute.type == kinds.FLOATS:
        _list(rng, attribute.floats, FLOATS)
    elif attribute.type == kinds.STRINGS:
        _list(rng, attribute.strings, [w.encode() for w in WORDS])
    elif attribute.type == kinds.TENSOR:
        _tensor(rng, attribute.t)


def _list(rng: random.Random, items: Any, values: Sequence[Any]) -> None:
    """One element, or the number of elements changed."""
    now = list(items)
    at = rng.randrange(len(now) + 1)
    how = rng.randrange(4)
    if how == 0:
        now.insert(at, rng.choice(values))
    elif how == 1:
        del now[at : at + 1]
    elif how == 2 and now:
        now[min(at, len(now) - 1)] = rng.choice(values)
    else:
        now = [rng.choice(values) for _ in range(rng.randrange(6))]
    del items[:]
    items.extend(now)


def _attribute_value(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    _value(rng, rng.choice(_node(rng, model).attribute))


def _attribute_kind(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    attributes = _node(rng, model).attribute
    at = rng.randrange(len(attributes))
    value = rng.choice([rng.choice(NUMBERS), 1.5, "word", [1, 2], [0.5], ["a"], np.ones(2)])
    if isinstance(value, np.ndarray):
        value = helper.make_tensor("t", TensorProto.FLOAT, [2], [1, 2])
    attributes[at].CopyFrom(helper.make_attribute(attributes[at].name, value))


def _attribute_gone(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    attributes = _node(rng, model).attribute
    del attributes[rng.randrange(len(attributes))]


def _attribute_more(rng: random.Random, model: Model, others: Sequence[Model]) -> None:
    """An attribute that the operator has or another one has, doubled where it is there."""
    from onnx import defs

    node = _node(rng, model)
    if defs.has(node.op_type, node.domain) and rng.random() < 0.8:
        known = defs.get_schema(node.op_type, node.domain).attributes
        name = rng.choice(sorted(known))
        kind = int(known[name].type.value)
        made = AttributeProto(name=name, type=kind)
        _value(rng, made)
        node.attribute.append(made)
        return
    node.attribute.append(rng.choice(_node(rng, rng.choice(others)).attribute))


def _inputs(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """An input dropped, doubled, left out, or taken from elsewhere."""
    graph = _graph(rng, model)
    _list(rng, rng.choice(graph.node).input, _names(graph))


def _outputs(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    graph = _graph(rng, model)
    _list(rng, rng.choice(graph.node).output, [*_names(graph), "new", "new2"])


def _operator(rng: random.Random, model: Model, others: Sequence[Model]) -> None:
    node, other = _node(rng, model), _node(rng, rng.choice(others))
    node.op_type, node.domain = other.op_type, other.domain


def _operator_and_attributes(rng: random.Random, model: Model, others: Sequence[Model]) -> None:
    node, other = _node(rng, model), _node(rng, rng.choice(others))
    node.op_type, node.domain = other.op_type, other.domain
    del node.attribute[:]
    node.attribute.extend(other.attribute)


def _appended(rng: random.Random, model: Model, others: Sequence[Model]) -> None:
    """Another operator behind one of the graph's values; its result is an output."""
    graph = model.graph
    node = NodeProto()
    node.CopyFrom(_node(rng, rng.choice(others)))
    names = _names(graph)
    node.input[:] = [rng.choice(names) if n else "" for n in node.input]
    node.output[:] = [f"{n}_more" if n else "" for n in node.output]
    graph.node.append(node)
    graph.output.add(name=node.output[0])


def _order(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# -- types, sizes, constants -----------------------------------------------------------------------


def _port(rng: random.Random, model: Model) -> Any:
    graph = model.graph
    return rng.choice([*graph.input, *graph.input, *graph.output, *graph.value_info])


def _dtype(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    port = _port(rng, model)
    port.type.tensor_type.elem_type = rng.choice(TYPES)


def _dimension(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    dims = _port(rng, model).type.tensor_type.shape.dim
    dim = rng.choice(dims)
    if rng.random() < 0.4:
        dim.dim_param = rng.choice(("n", "n", "m", *WORDS))
    else:
        dim.dim_value = rng.choice(SIZES)


def _dynamic(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """Every size of an input free: what is wrong shows only in the run."""
    port = rng.choice(model.graph.input)
    for axis, dim in enumerate(port.type.tensor_type.shape.dim):
        dim.dim_param = rng.choice(("n", f"d{axis}", f"{port.name}{axis}"))


def _rank(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    kind = _port(rng, model).type.tensor_type
    how = rng.randrange(3)
    if how == 0:
        kind.ClearField("shape")
    elif how == 1:
        kind.shape.dim.add(dim_value=rng.choice(SIZES))
    else:
        del kind.shape.dim[rng.randrange(len(kind.shape.dim))]


def _tensor(rng: random.Random, tensor: TensorProto) -> None:
    """Dims, type, or some of the content."""
    how = rng.randrange(4)
    if how == 0:
        _list(rng, tensor.dims, SIZES)
    elif how == 1:
        tensor.data_type = rng.choice(TYPES)
    elif how == 2 and tensor.int64_data:
        _list(rng, tensor.int64_data, NUMBERS)
    elif tensor.raw_data:
        data = bytearray(tensor.raw_data)
        at = rng.randrange(len(data) // 8 + 1) * 8
        data[at : at + 8] = (rng.choice(NUMBERS) % 2**64).to_bytes(8, "little")
        tensor.raw_data = bytes(data[: rng.choice((len(tensor.raw_data), len(data), at))])


def _constant(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    _tensor(rng, rng.choice(model.graph.initializer))


def _made_constant(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """An input becomes a constant of odd content."""
    port = rng.choice(model.graph.input)
    kind = port.type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim]
    if not 0 <= np.prod(shape, dtype=np.float64) <= 4096:
        return
    values = FLOATS if kind.elem_type in (1, 11) else NUMBERS
    content = [rng.choice(values) for _ in range(int(np.prod(shape)))]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    with np.errstate(all="ignore"):
        array = np.array(content, np.float64 if values is FLOATS else np.int64).astype(dtype)
    raw = array.reshape(shape).tobytes()
    made = TensorProto(name=port.name, data_type=kind.elem_type, dims=shape, raw_data=raw)
    model.graph.initializer.append(made)


def _made_input(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """A constant becomes an input."""
    tensors = model.graph.initializer
    at = rng.randrange(len(tensors))
    tensor = tensors[at]
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    model.graph.input.append(info)
    del tensors[at]


# -- the model -------------------------------------------------------------------------------------


def _opset(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    rng.choice(model.opset_import).version = rng.choice((*range(1, 30), 0, -1, 2**40))


def _more_opsets(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "clinfer", *WORDS))
    model.opset_import.add(domain=domain, version=rng.randrange(30))


def _domain(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    domains = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "clinfer", "ai.onnx.preview.training")
    _node(rng, model).domain = rng.choice(domains)


def _renamed(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """A name of a value changed everywhere to an odd one."""
    graph = model.graph
    old, new = rng.choice(_names(graph)), rng.choice(WORDS)
    for node in graph.node:
        node.input[:] = [new if n == old else n for n in node.input]
        node.output[:] = [new if n == old else n for n in node.output]
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if item.name == old:
            item.name = new


def _words(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    node = _node(rng, model)
    rng.choice((node, model.graph)).name = rng.choice(WORDS)
    if rng.random() < 0.3:
        node.op_type = rng.choice(WORDS)


def _ports(rng: random.Random, model: Model, _: Sequence[Model]) -> None:
    """An input or output of the graph doubled, gone, or another value's."""
    ports = rng.choice((model.graph.input, model.graph.output))
    at = rng.randrange(len(ports))
    how = rng.randrange(3)
    if how == 0:
        ports.append(ports[at])
    elif how == 1:
        del ports[at]
    else:
        ports[at].name = rng.choice(_names(model.graph))


CHANGES: tuple[Change, ...] = (
    *(_attribute_value,) * 4,
    _attribute_kind,
    _attribute_gone,
    *(_attribute_more,) * 2,
    *(_inputs,) * 2,
    _outputs,
    _operator,
    _operator_and_attributes,
    _appended,
    _order,
    *(_dtype,) * 2,
    *(_dimension,) * 3,
    *(_dynamic,) * 4,
    _rank,
    *(_constant,) * 2,
    *(_made_constant,) * 2,
    _made_input,
    _opset,
    _more_opsets,
    _domain,
    _renamed,
    _words,
    _ports,
)


# -- inputs ----------------------------------------------------------------------------------------


def odd_inputs(rng: random.Random, given: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a run with some of them changed."""
    made = dict(given)
    for name in [n for n in made if rng.random() < 0.6]:
        how = rng.randrange(12)
        if how == 0:
            del made[name]
        elif how == 1:
            made[rng.choice(WORDS)] = made.pop(name)
        elif how == 2:
            made[name] = rng.choice([None, "text", 3, [1, 2], [[1], [1, 2]], object(), {}, b"x"])
        elif isinstance(made[name], np.ndarray):
            made[name] = _odd_array(rng, made[name])
    return made


def _odd_array(rng: random.Random, array: Any) -> Any:
    how = rng.randrange(4)
    if how == 0:
        name = rng.choice(("float32", "float64", "int64", "int32", "uint8", "bool", "float16"))
        return np.zeros(array.shape, name)
    if how == 1 and array.dtype.kind in "iuf":
        made = array.copy()
        values = FLOATS if array.dtype.kind == "f" else NUMBERS
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        for at in range(min(made.size, 4)):
            value = rng.choice(values)
            if limits is not None:
                value = min(max(int(value), int(limits.min)), int(limits.max))
            with np.errstate(over="ignore"):
                made.reshape(-1)[at if at < 2 else rng.randrange(made.size)] = value
        return made
    shape = list(array.shape)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(shape) + 1)
        if rng.random() < 0.7 and shape:
            shape[min(at, len(shape) - 1)] = rng.choice((0, 1, 2, 3, 5, 7, 17, 65))
        elif rng.random() < 0.5:
            shape.insert(at, rng.choice((0, 1, 2)))
        else:
            del shape[at : at + 1]
    if np.prod(shape, dtype=np.float64) > 2**22:
        return array
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
