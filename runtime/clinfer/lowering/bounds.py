"""Nothing is read or written outside a tensor: what is proved when a model is compiled, and what is
left to be proved when sizes are bound.

A view of element counts n and strides s from offset o reaches from o + sum of (n - 1) * s over the
negative strides to o + sum of (n - 1) * s over the others, unless a count is 0. It must lie inside
its buffer, and its elements must be countable in the kernels' `int`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from clinfer.errors import ShapeError
from clinfer.graph.bounds import lower_bound
from clinfer.lowering.binding import check_reach
from clinfer.lowering.plan import Constraint, Reach
from clinfer_kernels.dims import RELATIONS, Dim, is_static, product
from clinfer_kernels.regions import regions
from clinfer_kernels.spec import Tensor, row_major


class Storage(Protocol):
    """A buffer; `size` in elements."""

    size: Dim


class Stored(Protocol):
    """A view of a buffer."""

    @property
    def storage(self) -> Storage: ...


class Proofs:
    """Collects what only a run's sizes can prove. Raises `ShapeError` for what is wrong already."""

    def __init__(self) -> None:
        self._reaches: dict[tuple[Dim, Tensor], Reach] = {}
        self._constraints: dict[tuple[Dim, Dim, str], Constraint] = {}

    @property
    def reaches(self) -> tuple[Reach, ...]:
        return tuple(self._reaches.values())

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return tuple(self._constraints.values())

    def launch(self, spec: Any, ins: Sequence[Stored], outs: Sequence[Stored], label: str) -> None:
        """What a launch of `spec` needs of the buffers of its operands."""
        operands = {"in": ins, "out": outs}
        found = regions(spec)
        for kind, index, tensor in found.views:
            self.view(tensor, operands[kind][index].storage.size, label)
        for left, right in found.equal:
            self._relate(left, right, "equal", f"{label}: sizes of its operands must be equal")
        for left, right in found.at_most:
            self._relate(left, right, "at most", f"{label}: an operand is larger than the other")

    def view(self, tensor: Tensor, size: Dim, label: str, is_counted: bool = True) -> None:
        """A view of a buffer of `size` elements; `is_counted`: by a kernel, in `int`."""
        reach = Reach(size, tensor.shape, tensor.strides, tensor.offset, label, is_counted)
        if is_static((size, *tensor.shape, *tensor.strides, tensor.offset)):
            check_reach(reach, _number)
        elif not _is_proved(tensor, size):
            self._reaches.setdefault((size, tensor._replace(dtype="")), reach)
        elif is_counted:
            for count in (size, tensor.size):
                self._count(count, label)

    def _count(self, count: Dim, label: str) -> None:
        """So many elements must be countable."""
        if isinstance(count, int):
            return
        key = (count, Tensor("", (count,), (1,)))
        self._reaches.setdefault(key, Reach(count, (count,), (1,), 0, label))

    def _relate(self, left: Dim, right: Dim, relation: str, message: str) -> None:
        if isinstance(left, int) and isinstance(right, int):
            if not RELATIONS[relation](left, right):
                raise ShapeError(f"{message}, found {left} and {right}")
        elif left != right:
            self._constraints.setdefault(
                (left, right, relation), Constraint(left, right, message, relation)
            )


def _is_proved(tensor: Tensor, size: Dim) -> bool:
    """Whether the view is inside whatever the sizes: dense over all of it, or by its bounds."""
    walked = [
        (n, s) for n, s in zip(tensor.shape, tensor.strides, strict=True) if s != 0 and n != 1
    ]
    shape = [n for n, _ in walked]
    is_dense = [s for _, s in walked] == list(row_major(shape))
    if is_dense and tensor.offset == 0 and product(shape) == size:
        return True
    last: Dim = tensor.offset
    for n, stride in walked:
        least = lower_bound(stride)
        if least is None or least < 0:
            return False
        last = last + (n - 1) * stride
    first, room = lower_bound(tensor.offset), lower_bound(size - 1 - last)
    return first is not None and first >= 0 and room is not None and room >= 0


def _number(dim: Dim) -> int:
    assert isinstance(dim, int)
    return dim
