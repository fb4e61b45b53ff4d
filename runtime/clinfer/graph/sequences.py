"""What a graph's nodes, its outputs and a value's readers are kept in.

Passes insert, remove and replace one at a time, in graphs of 100,000 nodes and with values that as
many nodes read; each such step takes the same time however large the graph is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinfer.graph.ir import Node, Value


class Users:
    """The nodes that read a value, once for each time, in the order in which they came.

    A node that reads a value several times stands at its first place.
    """

    __slots__ = ("_counts", "_size")

    def __init__(self) -> None:
        self._counts: dict[Node, int] = {}
        self._size = 0

    def append(self, node: Node) -> None:
        self._counts[node] = self._counts.get(node, 0) + 1
        self._size += 1

    def remove(self, node: Node) -> None:
        """Takes out one reading; `KeyError` where there is none."""
        left = self._counts[node] - 1
        if left:
            self._counts[node] = left
        else:
            del self._counts[node]
        self._size -= 1

    def clear(self) -> None:
        self._counts.clear()
        self._size = 0

    def are(self, node: Node) -> bool:
        """Whether `node` is the only one that reads the value, however often."""
        return len(self._counts) == 1 and node in self._counts

    def nodes(self) -> Iterator[Node]:
        """The nodes, each once."""
        return iter(self._counts)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Node]:
        for node, count in self._counts.items():
            for _ in range(count):
                yield node

    def __getitem__(self, index: int) -> Node:
        return list(self)[index]


class Outputs(MutableSequence["Value"]):
    """A graph's outputs, which know where a value stands among them."""

    def __init__(self, values: Iterable[Value] = ()) -> None:
        self._values = list(values)
        self._places: dict[Value, list[int]] = {}
        self._index()

    def __contains__(self, value: object) -> bool:
        return value in self._places

    def substitute(self, old: Value, new: Value) -> None:
        """Puts `new` wherever `old` stands."""
        places = self._places.pop(old, [])
        for place in places:
            self._values[place] = new
        if places:
            self._places.setdefault(new, []).extend(places)

    def _index(self) -> None:
        self._places.clear()
        for place, value in enumerate(self._values):
            self._places.setdefault(value, []).append(place)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)

    def __getitem__(self, at: Any) -> Any:
        return self._values[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        old, self._values[at] = self._values[at], value
        if isinstance(at, slice):
            self._index()
            return
        place = at % len(self._values)
        self._places[old].remove(place)
        if not self._places[old]:
            del self._places[old]
        self._places.setdefault(value, []).append(place)

    def __delitem__(self, at: Any) -> None:
        del self._values[at]
        self._index()

    def insert(self, at: int, value: Value) -> None:
        self._values.insert(at, value)
        if at >= len(self._values) - 1:
            self._places.setdefault(value, []).append(len(self._values) - 1)
        else:
            self._index()


class Nodes:
    """A graph's nodes in order. Insertions and removals are noted, and made when someone looks."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._nodes = list(nodes)
        self._before: dict[Node, list[Node]] = {}
        self._removed: set[Node] = set()

    def all(self) -> list[Node]:
        """The nodes."""
        if self._before or self._removed:
            self._nodes = list(self._edited())
            self._before, self._removed = {}, set()
        return self._nodes

    def insert(self, node: Node, before: Node | None) -> None:
        """Puts a node before another one, at the end without one."""
        if node in self._removed or before in self._removed:
            self.all()
        if before is None:
            self._nodes.append(node)
        else:
            self._before.setdefault(before, []).append(node)

    def remove(self, node: Node) -> None:
        """Takes a node out."""
        self._removed.add(node)

    def _edited(self) -> Iterator[Node]:
        for node in self._nodes:
            waiting = [node]
            while waiting:
                last = waiting[-1]
                first = self._before.pop(last, None)
                if first:
                    waiting += reversed(first)
                    continue
                waiting.pop()
                if last not in self._removed:
                    yield last
