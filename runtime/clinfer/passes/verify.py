"""The rules of the intermediate representation, checked between passes in tests.

`verify(graph)` checks structure; `verify(graph, canonical=True)` also the canonical form that
docs/ir.md describes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from clinfer.errors import ClinferError
from clinfer.graph.ir import Graph, Node, Value
from clinfer.passes.canonicalise.linear import REDUCTIONS
from clinfer.passes.query import broadcast, fits, integers, prologue_inputs, sizes
from clinfer.passes.rewrite import is_typed
from clinfer_kernels.dims import Dim
from clinfer_kernels.expr import Expr

Check = Callable[[Node], "str | None"]


class InvalidGraph(ClinferError):  # noqa: N818 - names a state, raised by checks of our own passes
    """A pass broke a rule of the representation; the message names the node and the rule."""


def verify(graph: Graph, canonical: bool = False) -> None:
    """Raises `InvalidGraph` with every violation found."""
    found = [*_structure(graph), *_users(graph)]
    if canonical:
        found += _form(graph)
    if found:
        raise InvalidGraph("the graph breaks its rules:\n  " + "\n  ".join(found))


def _structure(graph: Graph) -> Iterator[str]:
    defined: dict[int, Value] = {id(v): v for v in graph.inputs}
    for value in graph.inputs:
        if value.producer is not None:
            yield f"input '{value.name}' has a producer"
    for node in graph.nodes:
        for operand in node.inputs:
            if operand is not None and not _is_available(operand, defined):
                yield f"{node.describe()} reads '{operand.name}' before it is computed"
        for result in node.outputs:
            if result is None:
                continue
            if id(result) in defined:
                yield f"'{result.name}' has two producers"
            if result.producer is not node:
                yield f"'{result.name}' does not know its producer {node.describe()}"
            defined[id(result)] = result
    for value in graph.outputs:
        if not _is_available(value, defined):
            yield f"output '{value.name}' is never computed"


def _is_available(value: Value, defined: dict[int, Value]) -> bool:
    if id(value) in defined:
        return True
    known = value.const is not None or value.symbolic is not None
    return known and value.producer is None


def _users(graph: Graph) -> Iterator[str]:
    expected: dict[int, Counter[int]] = {id(v): Counter() for v in graph.values()}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None:
                expected[id(value)][id(node)] += 1
    for value in graph.values():
        if Counter(map(id, value.users)) != expected[id(value)]:
            yield f"the users of '{value.name}' are not the nodes that read it"


def _form(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        check = _CHECKS.get(node.kind)
        message = check(node) if check is not None and is_typed(node) else None
        if message is not None:
            yield f"{node.describe()}: {message}"


def _never(node: Node) -> str | None:
    return f"{node.kind} is not canonical"


def _one_input(node: Node) -> str | None:
    if len(node.inputs) == 1 or sizes(node.input(1)) is None:
        return None  # sizes computed from data make a host step
    return f"one input expected, found {len(node.inputs)}"


def _transpose(node: Node) -> str | None:
    shape = node.required(0).known_shape
    perm = node.attrs.get("perm")
    if perm is None or sorted(perm) != list(range(len(shape))):
        return f"'perm' {perm} is no permutation of rank {len(shape)}"
    if tuple(shape[p] for p in perm) != node.output.shape:
        return f"the shape {node.output.shape} is not {shape} permuted by {perm}"
    return None


def _slice(node: Node) -> str | None:
    if "steps" not in node.attrs:
        return _one_input(node)
    starts = node.attrs["starts"]
    if any(isinstance(s, int) and s < 0 for s in starts):
        return f"a start among {starts} is negative"
    return _one_input(node)


def _concat(node: Node) -> str | None:
    axis = node.attrs["axis"]
    if axis < 0:
        return f"the axis {axis} is negative"
    shapes = [v.known_shape for v in node.inputs if v is not None]
    wanted = node.output.known_shape
    for shape in shapes:
        pairs = zip(shape, wanted, strict=True)
        if any(a != b for i, (a, b) in enumerate(pairs) if i != axis and _are_known(a, b)):
            return f"{shapes} differ beyond axis {axis}"
    return None


def _are_known(*dims: Dim) -> bool:
    return all(isinstance(d, int) for d in dims)


def _matmul(node: Node) -> str | None:
    a, b = node.required(0).known_shape, node.required(1).known_shape
    if len(a) < 2 or len(b) < 2:
        return "operands of rank 2 or more expected"
    if a[-1] != b[-2] and _are_known(a[-1], b[-2]):
        return f"{a} @ {b}: the inner sizes differ"
    if (a[-2], b[-1]) != node.output.known_shape[-2:]:
        return f"{a} @ {b} is not of the shape {node.output.shape}"
    return _epilogue(node, 2)


def _row_matmul(node: Node) -> str | None:
    if len(node.outputs) != 4:
        return f"4 outputs expected, found {len(node.outputs)}"
    norm = node.attrs.get("norm")
    columns = node.inputs[3 : node.attrs["own"]]
    if norm is not None and tuple(v and v.dtype for v in columns) != norm.inputs[1:]:
        return "the norm's operands are not its inputs"
    return _matmul(node)


def _reduce(node: Node) -> str | None:
    axes = node.attrs.get("axes")
    if axes is None and integers(node.input(1)) is None:
        return None  # axes computed from data make a host step
    if axes is None or axes != sorted(axes) or any(a < 0 for a in axes):
        return f"sorted, non-negative axes expected, found {axes}"
    if "keepdims" not in node.attrs:
        return "'keepdims' expected"
    return _epilogue(node, 1)


def _pointwise(node: Node) -> str | None:
    expr = node.attrs.get("expr")
    if not isinstance(expr, Expr):
        return "'expr' expected"
    dtypes = tuple(v.dtype for v in node.inputs if v is not None)
    if dtypes != expr.inputs or expr.output_dtypes != (node.output.dtype,):
        return f"dtypes {dtypes} -> {node.output.dtype} where the expression has {expr.inputs}"
    for value in node.inputs:
        if value is not None and not fits(value.known_shape, node.output.known_shape):
            return f"{value} does not broadcast to {node.output}"
    return None


def _norm(node: Node) -> str | None:
    if "eps" not in node.attrs or "rms" not in node.attrs:
        return "'eps' and 'rms' expected"
    return _trailing(node)


def _trailing(node: Node) -> str | None:
    axes = node.attrs.get("axes")
    if not isinstance(axes, int) or not 0 <= axes <= len(node.output.known_shape):
        return f"'axes' {axes} is no count of trailing dimensions"
    return _epilogue(node, 1)


def _window(node: Node) -> str | None:
    rank = len(node.required(0).known_shape) - 2
    lengths = [len(node.attrs[name]) for name in ("kernel", "strides", "dilations")]
    if lengths != [rank] * 3 or len(node.attrs["pads"]) != 2 * rank:
        return f"attributes for {rank} spatial dimensions expected"
    own = {"Pool": 1, "ProjectedConv": 3}.get(node.op, 2)
    shape = node.output.known_shape
    if node.op in ("Conv", "ProjectedConv") and shape[-1] != node.required(1).known_shape[0]:
        return f"{shape[-1]} channels where the weights have {node.required(1).known_shape[0]}"
    return _epilogue(node, own)


def _projected(node: Node) -> str | None:
    side, shape = node.required(2).known_shape, node.output.known_shape
    if side[:-1] != shape[:-1]:
        return f"the pixels {side} projected are not those of {node.output}"
    return _window(node)


def _attention(node: Node) -> str | None:
    shapes = [v.known_shape for v in node.inputs[:3] if v is not None]
    if any(len(s) != 4 for s in shapes):
        return f"operands of rank 4 expected, found {shapes}"
    q, k, v = shapes
    if q[-1] != k[-1] or k[2] != v[2] or node.output.known_shape != (*q[:3], v[-1]):
        return f"{shapes} -> {node.output.shape} do not fit each other"
    mask = node.input(3)
    if mask is not None and not fits(mask.known_shape, (*q[:3], k[2])):
        return f"the mask {mask} does not broadcast to the scores"
    return None


def _recurrent(node: Node) -> str | None:
    x, r = node.required(0).known_shape, node.required(1).known_shape
    if node.attrs["packed"] and len(x) == len(r) == 5 and (x[2], x[3]) == (r[0], r[3]):
        return None
    if len(x) != 5 or len(r) != 3 or x[2] != r[0] or x[3] * r[2] != r[1]:
        return f"inputs {x} and weights {r} do not fit each other"
    return None


def _epilogue(node: Node, own: int) -> str | None:
    """What holds for every anchor: see 'Epilogues and prologues' in docs/ir.md."""
    before, after = node.attrs.get("prologue"), node.attrs.get("epilogue")
    own = node.attrs.get("own", own)
    if before is not None:
        operands = prologue_inputs(node)
        if tuple(v.dtype for v in operands) != before.inputs:
            return "the prologue's operands are not its inputs"
        if broadcast([v.known_shape for v in operands]) is None:
            return "the prologue's operands do not broadcast"
    if after is None:
        return None if len(node.inputs) == own else "operands without an epilogue"
    if node.attrs.get("keepdims", 1) != 1:
        return "a reduction with an epilogue keeps its dimensions"
    rest = [v for v in node.inputs[own:] if v is not None]
    if tuple(v.dtype for v in rest) != after.inputs[1:]:
        return "the epilogue's operands are not its inputs"
    if after.output_dtypes != (node.output.dtype,):
        return f"the epilogue gives {after.output_dtypes}, the node {node.output.dtype}"
    wrong = [v for v in rest if not fits(v.known_shape, node.output.known_shape)]
    return f"{wrong[0]} does not broadcast to {node.output}" if wrong else None


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("Identity", "Flatten", "Softmax", "LogSoftmax"), _never),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _never),
    **dict.fromkeys(("Reshape", "Expand"), _one_input),
    "Transpose": _transpose,
    "Slice": _slice,
    "Concat": _concat,
    "MatMul": _matmul,
    "clinfer.RowMatMul": _row_matmul,
    **dict.fromkeys(REDUCTIONS, _reduce),
    "clinfer.Pointwise": _pointwise,
    "clinfer.Softmax": _trailing,
    "clinfer.Norm": _norm,
    **dict.fromkeys(("clinfer.Conv", "clinfer.ConvTranspose", "clinfer.Pool"), _window),
    "clinfer.ProjectedConv": _projected,
    "clinfer.Attention": _attention,
    "clinfer.Recurrent": _recurrent,
}
