"""Steps of a plan to be, whose buffers have no places yet."""

from __future__ import annotations

from dataclasses import dataclass

from clinfer.graph.ir import Node
from clinfer.lowering.plan import Check, Constraint, Reach
from clinfer.lowering.storage import Storage, View
from clinfer_kernels.dims import Dim
from clinfer_kernels.spec import Kernel


@dataclass
class PendingLaunch:
    """A kernel chosen, with the storages its 'in' and 'out' arguments mean."""

    kernel: Kernel
    ins: tuple[Storage, ...]
    outs: tuple[Storage, ...]
    label: str
    checks: tuple[Check, ...] = ()


@dataclass
class PendingHost:
    """A host step: `op` is made by `graph.reference`; operands are views or host storages."""

    node: Node
    inputs: tuple[View | Storage | None, ...]
    outputs: tuple[View | Storage | None, ...]
    reason: str


@dataclass
class PendingBlock:
    """As `plan.Block`; `first` and `end` count pending steps."""

    first: int
    end: int
    label: str
    constraints: tuple[Constraint, ...]
    reaches: tuple[Reach, ...]
    error: str


@dataclass
class PendingBranch:
    """An If; the steps of its blocks come behind it."""

    condition: View
    blocks: list[PendingBlock]
    label: str


@dataclass
class PendingLoop:
    """As `plan.LoopStep`; the steps of its block come behind it, a `PendingAgain` last."""

    limit: View | None
    going: View | None
    counter: Storage | None
    states: list[tuple[Storage, Storage]]
    parts: list[tuple[Storage, Storage, bool]]
    stacks: list[Storage]
    sizes: tuple[tuple[str, Dim], ...]
    gives: tuple[tuple[str, int], ...]
    block: PendingBlock
    needs: str
    label: str


@dataclass
class PendingAgain:
    """As `plan.AgainStep`; `loop` is the loop that it is the last step of."""

    loop: PendingLoop
    goes_on: View | None
    moves: list[tuple[Storage, Storage]]
    rows: list[tuple[Storage, Storage, bool]]
    sizes: tuple[tuple[str, Dim], ...]
    row_sizes: tuple[tuple[str, Dim], ...]
    label: str


@dataclass
class PendingSizes:
    """As `plan.SizesStep`, with the views that are read."""

    values: tuple[View, ...]
    names: tuple[str, ...]
    definitions: tuple[tuple[str, Dim], ...]
    gives: tuple[str, ...]
    checks: tuple[tuple[str, Check], ...]
    constraints: tuple[Constraint, ...]
    label: str


Pending = PendingLaunch | PendingHost | PendingBranch | PendingLoop | PendingAgain | PendingSizes
