"""One node of com.microsoft as a model, and its results next to ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from graph_helpers import by_onnxruntime, run
from onnx import helper, numpy_helper

from clinfer.graph.reader import read

Arrays = Mapping[str, Any]
EIGHT = pytest.mark.parametrize("dtype", [np.uint8, np.int8])


def eight(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> Any:
    info = np.iinfo(dtype)
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def scale(number: float) -> Any:
    return np.array(number, np.float32)


def zero(number: int, dtype: Any) -> Any:
    return np.array(number, dtype)


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    """Normal numbers, others for other shapes and seeds."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def model(
    op: str,
    inputs: Arrays,
    attrs: Mapping[str, Any] | None = None,
    outputs: int | list[str] = 1,
    constant: Collection[str] = (),
    free: Mapping[int, str] | None = None,
    domain: str = "com.microsoft",
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """`inputs` in order, None where absent; those named in `constant` are initialisers.

    `free` names the dimensions that are left open, by their size.
    """
    names = [name if array is not None else "" for name, array in inputs.items()]
    results = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
    node = helper.make_node(op, names, results, domain=domain, **(attrs or {}))
    given = {n: a for n, a in inputs.items() if a is not None}
    infos = [
        helper.make_tensor_value_info(
            n,
            helper.np_dtype_to_tensor_dtype(a.dtype),
            [(free or {}).get(d, d) for d in a.shape],
        )
        for n, a in given.items()
        if n not in constant
    ]
    first = next(a.dtype for a in given.values())
    kinds = types or {}
    default = helper.np_dtype_to_tensor_dtype(first)
    outs = [helper.make_tensor_value_info(n, kinds.get(n, default), None) for n in results if n]
    known = [numpy_helper.from_array(given[n], n) for n in given if n in constant]
    graph = helper.make_graph([node], "g", infos, outs, known)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def found(content: onnx.ModelProto, inputs: Arrays) -> list[Any]:
    """What the model read by clinfer computes, every operator in NumPy."""
    graph = read(content).graph()
    return run(graph, [inputs[value.name] for value in graph.inputs])


def compared(
    op: str,
    inputs: Arrays,
    attrs: Mapping[str, Any] | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **form: Any,
) -> None:
    """The results are ONNX Runtime's, for those of the reader's graph and its inferred types."""
    content = model(op, inputs, attrs, **form)
    constant = form.get("constant", ())
    feeds = {n: a for n, a in inputs.items() if a is not None and n not in constant}
    wanted = by_onnxruntime(content, feeds)
    for got, want in zip(found(content, feeds), wanted, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol
        )
