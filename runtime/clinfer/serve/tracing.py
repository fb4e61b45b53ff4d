"""Spans of OpenTelemetry, where its API is installed; without it nothing.

Where spans go is the environment's to say: `opentelemetry-instrument clinfer serve ...`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]


def span(name: str, headers: Mapping[str, str], **attributes: Any) -> AbstractContextManager[Any]:
    """Around a request: the child of the span that its headers name (W3C's `traceparent`)."""
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return nullcontext()  # nobody has said where spans go
    return trace.get_tracer("clinfer.serve").start_as_current_span(
        name,
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={f"clinfer.{key}": value for key, value in attributes.items()},
    )
