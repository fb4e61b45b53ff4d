"""How much a fused kernel takes: buffers, lines, bytes of arguments."""

from __future__ import annotations

from collections.abc import Iterable

from clinfer.graph.ir import Value
from clinfer_kernels.spec import MOST_ARGUMENT_BYTES

MAX_OPERANDS = 12
MAX_LINES = 96
_RESULTS = 2  # at most, of a fused kernel


def most_operands(operands: Iterable[Value]) -> int:
    """How many operands like these a kernel reads: each has a stride a dimension as arguments.

    One whose shape is not known stands for the result of the operator it is fused with.
    """
    rank = max((len(value.shape or ()) for value in operands), default=0)
    each = 12 + 4 * rank  # its address, its offset, its strides
    room = (MOST_ARGUMENT_BYTES - 4 * rank) // each - _RESULTS
    return max(min(MAX_OPERANDS, room), 2)
