"""Operators given as a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clinfer.operators.custom import CustomOperator


class PythonOperator(CustomOperator):
    """An operator computed by a Python function, between the device's launches.

    `function(*inputs, **attributes)` gets arrays and returns an array, or a tuple of them where
    there are several outputs. A size of an output that only the run tells is None. `version` enters
    the cache's key, for what `types` reads from elsewhere. Otherwise as `CustomOperator`.
    """

    unknown_sizes = True

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        inputs: Mapping[str, Any],
        outputs: Any,
        attributes: Mapping[str, Any] | None = None,
        types: Callable[..., Any] | None = None,
        version: str = "",
    ) -> None:
        super().__init__(name, inputs, outputs, attributes, types)
        if not callable(function):
            raise self.error(f"a function expected, found {type(function).__name__}")
        self.function = function
        self.version = str(version)

    @property
    def reason(self) -> str:  # type: ignore[override]
        return f"{self.name} is a Python function"

    def _content(self) -> list[Any]:
        return [*super()._content(), self.version]
