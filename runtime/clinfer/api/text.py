"""What `print` and a notebook show of models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from clinfer.errors import listed

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.graph.model import Model
    from clinfer.ports import Port

_MOST_PORTS = 4
_ROW = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"


def model_text(model: Model) -> str:
    """A model in five lines: what it is, inputs, outputs, operators, constants."""
    return "\n".join(f"{word}{text}" for word, text in _model_rows(model))


def model_html(model: Model) -> str:
    """The same for a notebook, with all ports."""
    rows = [text for word, text in _model_rows(model) if word in ("", "  operators: ")]
    return _html(f"Model {rows[0].removeprefix('Model ')}", model.inputs, model.outputs, rows[1:])


def compiled_text(model: CompiledModel) -> str:
    """A compiled model in four lines."""
    return "\n".join(
        [
            f"CompiledModel on {model._where}",
            f"  inputs: {ports_text(model.inputs)}",
            f"  outputs: {ports_text(model.outputs)}",
            f"  steps: {_steps(model)}",
        ]
    )


def compiled_html(model: CompiledModel) -> str:
    """The same for a notebook, with all ports."""
    head = f"CompiledModel on {model._where}"
    return _html(head, model.inputs, model.outputs, [_steps(model)])


def ports_text(ports: Sequence[Port]) -> str:
    """'image float32[N,3,224,224]', the first of many."""
    return listed((f"{p.name} {p.dtype}{_shape(p)}" for p in ports), _MOST_PORTS)


def _model_rows(model: Model) -> list[tuple[str, str]]:
    graph = model._graph
    kinds = Counter(node.kind for node in graph.nodes)
    counts = [f"{kind} {count}" for kind, count in kinds.most_common()]
    constants = [value.const for value in graph.values() if value.const is not None]
    nbytes = sum(array.nbytes for array in constants)
    opsets = ", ".join(f"{name or 'opset'} {v}" for name, v in sorted(model.opsets.items()))
    origin = "bytes" if isinstance(model.source, bytes) else model.source.name
    return [
        ("", f"Model '{model.friendly_name}' from {origin}, {opsets}"),
        ("  inputs: ", ports_text(model.inputs)),
        ("  outputs: ", ports_text(model.outputs)),
        ("  operators: ", f"{len(graph.nodes)} ({listed(counts)})"),
        ("  constants: ", f"{len(constants)} of {nbytes:,} bytes"),
    ]


def _steps(model: CompiledModel) -> str:
    plans = model._plans
    counts = [(len(list(p.launches)), len(list(p.host_steps)), len(p.programs)) for p in plans]
    return "{} kernels, {} host steps, {} programs".format(*map(sum, zip(*counts, strict=True)))


def _shape(port: Port) -> str:
    return str(port.partial_shape) if port.shape is None or port.bounds else port.shape.to_string()


def _html(head: str, inputs: Sequence[Port], outputs: Sequence[Port], rest: list[str]) -> str:
    ports = [("input", port) for port in inputs] + [("output", port) for port in outputs]
    rows = [
        _ROW.format(kind, escape(port.name), escape(port.dtype), escape(_shape(port)))
        for kind, port in ports
    ]
    table = (
        f"<table><tr><th></th><th>name</th><th>type</th><th>shape</th></tr>{''.join(rows)}</table>"
    )
    return f"<p><b>{escape(head)}</b></p>{table}<p>{escape('; '.join(rest))}</p>"
