"""The activations that LSTM, GRU and RNN name in their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ARITY = {"LSTM": 3, "GRU": 2, "RNN": 1}
_DEFAULTS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


class Activation(NamedTuple):
    """A function and its parameters; those that it does not take are 0."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


# The parameters that each function takes, with the values they have where a model gives none. ONNX
# points to operators of the same name; ONNX Runtime, which this follows, takes 0 for the others.
_PARAMETERS: dict[str, dict[str, float]] = {
    "Affine": {"alpha": 0.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "ScaledTanh": {"alpha": 0.0, "beta": 0.0},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 0.0},
}
_BY_LOWER = {name.lower(): name for name in _PARAMETERS}


def activations(op: str, attrs: Mapping[str, Any], directions: int) -> list[Activation]:
    """f, g, h of each direction in turn; `ValueError` for other names or numbers of them.

    The lists of parameters have values for the functions that take them only, in their order.
    """
    names = [_text(name) for name in attrs.get("activations") or ()]
    names = names or list(_DEFAULTS[op]) * directions
    if len(names) != ARITY[op] * directions:
        raise ValueError(
            f"{ARITY[op] * directions} activations expected ({ARITY[op]} for each of {directions} "
            f"directions), found {len(names)}"
        )
    given = {key: list(attrs.get(f"activation_{key}") or ()) for key in ("alpha", "beta")}
    found = []
    for name in names:
        known = _BY_LOWER.get(name.lower())
        if known is None:
            raise ValueError(
                f"activation '{name}' is not known; expected one of {', '.join(_PARAMETERS)}"
            )
        parameters = _PARAMETERS[known].items()
        values = {k: float(given[k].pop(0)) if given[k] else default for k, default in parameters}
        found.append(Activation(known, **values))
    return found


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
