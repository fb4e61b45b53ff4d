"""What a run gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clinfer import feeds
from clinfer.ports import Port, index_of

Key = str | int | Port


class Results(Mapping[Key, Any]):
    """A request's results, found by output, by name or by index; iterates over the outputs."""

    def __init__(self, ports: tuple[Port, ...], values: list[Any]) -> None:
        self._ports = ports
        self._values = values

    def __getitem__(self, key: Key) -> Any:
        return self._values[index_of(self._ports, key, "output")]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._ports)

    def __len__(self) -> int:
        return len(self._ports)

    def names(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(port.name for port in self._ports)

    def to_dict(self) -> dict[str, Any]:
        """The results by name."""
        return dict(zip(self.names(), self._values, strict=True))

    def to_tuple(self) -> tuple[Any, ...]:
        """The results in the outputs' order."""
        return tuple(self._values)

    def encoded(self) -> Results:
        """The same with text as `bytes`."""
        from clinfer.api.tensor import Tensor

        text = [port.dtype == "string" for port in self._ports]
        values = [
            Tensor(value, shared_memory=True).bytes_data if is_text else value
            for value, is_text in zip(self._values, text, strict=True)
        ]
        return Results(self._ports, values)

    def deliver(self, into: Mapping[int, Any]) -> None:
        """Puts results into the arrays meant for them, by position, which then are the results.

        Raises `ShapeError` where one has another shape than the result in this run.
        """
        feeds.deliver(self._ports, self._values, into)

    def __repr__(self) -> str:
        return f"Results({', '.join(self.names())})"
