"""The plan: what a device has to do for one inference, as plain data without code.

    Plan
      inputs, outputs    ports: name, dtype, shape, buffer
      buffers            every tensor's storage: kind, dtype, size, lifetime
      programs           distinct OpenCL sources
      steps              launches, host steps, branches and sizes read from data, in order
      constants          packed weights, one array per 'const' buffer
      constraints        what must hold between sizes, checked when they are bound
      reaches            views that must lie inside their buffers, checked then too
      checks             what must hold of positions in data, checked by the launches that read them

Sizes may be expressions over symbols; binding input shapes gives their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from clinfer import dtypes
from clinfer.sha256 import sha256
from clinfer_kernels import dims as dim_algebra
from clinfer_kernels.dims import Dim
from clinfer_kernels.player import ENTRY
from clinfer_kernels.spec import Tensor

Array = np.ndarray[Any, Any]


class PlanPort(NamedTuple):
    """An input or output of the model. `shape` is None for host objects of unknown rank."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    buffer: int
    labels: tuple[str | None, ...] = ()


class Buffer(NamedTuple):
    """Storage for one tensor.

    kind: 'input' | 'output' | 'temp' (in the arena) | 'const' (`constant` indexes the plan's
    constants) | 'sizes' (`content` holds sizes, written when shapes are bound) | 'host' (a Python
    object, never on the device) | 'status' (what launches report by the plan's `checks`; one for
    each request, `clinfer_kernels.positions`). `size` counts elements; `first` and `last` are the
    steps that write and last read it.
    """

    kind: str
    dtype: str
    size: Dim
    constant: int = -1
    content: tuple[Dim, ...] = ()
    first: int = -1
    last: int = -1

    def nbytes(self, sizes: Callable[[Dim], int]) -> int:
        """Bytes, given the values of sizes."""
        return sizes(self.size) * dtypes.size_of(self.dtype)


@dataclass(frozen=True)
class Program:
    """One OpenCL source text with its build options; `entry` is its kernel's name.

    `local_size` is the size of the work-groups its kernel is always launched with.
    """

    entry: str
    source: str
    options: str
    local_size: tuple[int, ...] = (1,)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source and the options, in hex."""
        return sha256(f"{self.options}\0{self.source}".encode()).hexdigest()


class PlanArg(NamedTuple):
    """kind 'buffer' (`buffer` is an index), 'scalar' (`value`, as C type `ctype`) or 'local'."""

    kind: str
    buffer: int = -1
    value: Dim = 0
    ctype: str = "int"


class LaunchStep(NamedTuple):
    """One kernel launch. `label` names the graph nodes it computes, for people.

    `when` is 1 where it runs, 0 where the sizes of a run ask for other launches of the same nodes;
    all of them are among the plan's programs, so that a new size builds nothing. `problem` is the
    digest by which tuning data know it; a stored plan does not keep it.
    """

    program: int
    args: tuple[PlanArg, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...]
    label: str
    flops: Dim = 0
    writes: tuple[int, ...] = ()
    problem: str = ""
    when: Dim = 1

    @property
    def is_playable(self) -> bool:
        """Whether the player can call its kernel: one work-item a group."""
        return prod(self.local_size) == 1


class HostValue(NamedTuple):
    """A host step's operand or result: a buffer read through a view, or a host object.

    `object_shape` is that of a host object that is an array of known rank: a tensor of strings.
    """

    buffer: int
    tensor: Tensor | None
    object_shape: tuple[Dim, ...] | None = None

    @property
    def shape(self) -> tuple[Dim, ...] | None:
        """The sizes it has or gives; None where not even the rank is known."""
        return self.object_shape if self.tensor is None else self.tensor.shape


class HostStep(NamedTuple):
    """One operator run on the host; `op` is plain data of `HostOp`, or of a `FunctionOp`."""

    op: Mapping[str, Any]
    inputs: tuple[HostValue | None, ...]
    outputs: tuple[HostValue | None, ...]
    label: str
    reason: str


class Constraint(NamedTuple):
    """What must hold between two sizes when shapes are bound; `message` names who says so.

    `relation` is a key of `clinfer_kernels.dims.RELATIONS`.
    """

    left: Dim
    right: Dim
    message: str
    relation: str = "equal"


class Reach(NamedTuple):
    """A view, in elements, that must lie inside its buffer of `size` elements in every run.

    `is_counted`: kernels count its elements, in `int`.
    """

    size: Dim
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim
    label: str
    is_counted: bool = True


class Block(NamedTuple):
    """Steps `first` to `end` - 1 of a plan, which run together or not at all.

    What must hold for the sizes of a run counts where they run. `error`: they never can, and why.
    """

    first: int
    end: int
    label: str
    constraints: tuple[Constraint, ...] = ()
    reaches: tuple[Reach, ...] = ()
    error: str = ""

    @property
    def requirements(self) -> Iterator[Constraint | Reach]:
        """What must hold for the sizes of a run that comes here."""
        yield from self.constraints
        yield from self.reaches


class BranchStep(NamedTuple):
    """An If: one of the two blocks behind it runs, the first where `condition` holds."""

    condition: HostValue
    blocks: tuple[Block, ...]
    label: str


class Part(NamedTuple):
    """A buffer of rows and the buffer of the one that a step of a loop reads or gives.

    Row n is that of step n; `is_reversed`: counted from the last row.
    """

    whole: int
    row: int
    is_reversed: bool = False


class LoopStep(NamedTuple):
    """A Loop or Scan: its block runs again and again; the block's last step is an `AgainStep`.

    As long as it goes on, at first as `going` says (None: it does), and for `limit` steps at most
    (None: any number). `counter` is the buffer that gets the number of the step, -1 without one.
    Before the first step `states` are copied, (from, to); before each one its row of `parts`.
    `stacks` are the buffers of what is stacked. `sizes` are symbols that each step binds anew, with
    what they are before the first. When the loop is over, `gives` are bound: symbols of results,
    with what each is where no step has run, or -1 for the number of steps. `inner` are those that
    only the block's steps know. `needs` says why a run without a step is wrong, '' where it is not.
    """

    limit: HostValue | None
    going: HostValue | None
    counter: int
    states: tuple[tuple[int, int], ...]
    parts: tuple[Part, ...]
    stacks: tuple[int, ...]
    sizes: tuple[tuple[str, Dim], ...]
    gives: tuple[tuple[str, int], ...]
    inner: tuple[str, ...]
    block: Block
    needs: str
    label: str

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block, as branches have two."""
        return (self.block,)


class AgainStep(NamedTuple):
    """The end of a step of the loop that is step `loop` of the plan.

    It goes on where `goes_on` holds (None: always). `rows` are added to what is stacked, then
    `moves` are done, (from, to): what it reads is not read again in that step, and no buffer is in
    two of them. `sizes` bind the loop's symbols for the next step, all at once; `row_sizes` are
    what of the loop's `gives` is the size of a row.
    """

    loop: int
    goes_on: HostValue | None
    moves: tuple[tuple[int, int], ...]
    rows: tuple[Part, ...]
    sizes: tuple[tuple[str, Dim], ...]
    row_sizes: tuple[tuple[str, Dim], ...]
    label: str


class Check(NamedTuple):
    """What holds of a position that a launch reads: `low` <= it < `high`.

    `what` names the node and the position. Number n of a plan's checks has slot n + 1 of `status`.
    """

    what: str
    low: Dim
    high: Dim

    def message(self, sizes: Callable[[Dim], int], found: int) -> str:
        """What is wrong with a position outside."""
        low, high = sizes(self.low), sizes(self.high)
        expected = f"{low} to {high - 1} is expected" if low < high else "there are none to choose"
        return f"{self.what} is {found} where {expected}; give positions that the data has"


class SizesStep(NamedTuple):
    """Sizes that are in data: elements of small integer tensors, read between launches.

    `values` are read in order, their elements named `names`. `definitions` compute numbers from
    them and from sizes known by then, one after the other; those in `gives` are sizes from here
    on, and at least 0. Names that are not given mean nothing outside. Of elements `checks` must
    hold, by name, and of the numbers `constraints`.
    """

    values: tuple[HostValue, ...]
    names: tuple[str, ...]
    definitions: tuple[tuple[str, Dim], ...]
    gives: tuple[str, ...]
    checks: tuple[tuple[str, Check], ...]
    constraints: tuple[Constraint, ...]
    label: str


Step = LaunchStep | HostStep | BranchStep | LoopStep | AgainStep | SizesStep


def touched(step: Step) -> list[int]:
    """The buffers that a step reads or writes; of a loop's all that its steps have in common."""
    if isinstance(step, LaunchStep):
        return [arg.buffer for arg in step.args if arg.kind == "buffer"]
    if isinstance(step, BranchStep):
        return [step.condition.buffer]
    if isinstance(step, SizesStep):
        return [value.buffer for value in step.values]
    if isinstance(step, LoopStep):
        found = [v.buffer for v in (step.limit, step.going) if v is not None]
        found += [number for pair in step.states for number in pair]
        found += [number for part in step.parts for number in part[:2]]
        return [*found, *step.stacks, *([step.counter] if step.counter >= 0 else [])]
    if isinstance(step, AgainStep):
        found = [] if step.goes_on is None else [step.goes_on.buffer]
        found += [number for pair in step.moves for number in pair]
        return found + [number for part in step.rows for number in part[:2]]
    values = (*step.inputs, *step.outputs)
    return [value.buffer for value in values if value is not None]


@dataclass(frozen=True)
class Plan:
    """See the module's text."""

    inputs: tuple[PlanPort, ...]
    outputs: tuple[PlanPort, ...]
    buffers: tuple[Buffer, ...]
    programs: tuple[Program, ...]
    steps: tuple[Step, ...]
    constants: tuple[Array, ...] = field(repr=False)
    constraints: tuple[Constraint, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    reaches: tuple[Reach, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def requirements(self) -> Iterator[Constraint | Reach]:
        """What must hold for the sizes of a run."""
        yield from self.constraints
        yield from self.reaches

    def outermost(self, first: int, end: int) -> Iterator[tuple[int, Step]]:
        """Steps `first` to `end` - 1 with their numbers, without those in blocks."""
        number = first
        while number < end:
            step = self.steps[number]
            yield number, step
            if isinstance(step, (BranchStep, LoopStep)):
                number = step.blocks[-1].end
            else:
                number += 1

    @property
    def launches(self) -> Iterator[LaunchStep]:
        return (step for step in self.steps if isinstance(step, LaunchStep))

    @cached_property
    def player(self) -> int | None:
        """The program that can run all launches of the plan, where it has one."""
        return next((i for i, p in enumerate(self.programs) if p.entry == ENTRY), None)

    @cached_property
    def status(self) -> int | None:
        """The buffer of kind 'status', where launches have something to check."""
        return next((i for i, b in enumerate(self.buffers) if b.kind == "status"), None)

    @property
    def host_steps(self) -> Iterator[HostStep]:
        return (step for step in self.steps if isinstance(step, HostStep))

    @cached_property
    def input_symbols(self) -> frozenset[str]:
        """Symbols bound by the inputs' shapes."""
        names: set[str] = set()
        for port in self.inputs:
            for dim in port.shape or ():
                names |= dim_algebra.symbols(dim)
        return frozenset(names)

    @cached_property
    def has_late_symbols(self) -> bool:
        """Whether some sizes are known only when a step before them has run."""
        if any(isinstance(step, SizesStep) for step in self.steps):
            return True
        if any(isinstance(step, LoopStep) and (step.sizes or step.gives) for step in self.steps):
            return True
        for step in self.host_steps:
            for value in step.outputs:
                for dim in (None if value is None else value.shape) or ():
                    if not dim_algebra.symbols(dim) <= self.input_symbols:
                        return True
        return False


class Absent(np.ndarray[Any, Any]):
    """Stands for a constant that is not in this process's memory: its type and shape alone."""


def absent(dtype: Any, shape: Sequence[int]) -> Array:
    """What stands for a constant of that type and shape."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape)).view(Absent)


def without_weights(plan: Plan) -> Plan:
    """The plan with nothing in memory of constants that launches read."""
    weights = {buffer.constant for buffer in plan.buffers if buffer.kind == "const"}
    kept = [
        absent(c.dtype, c.shape) if number in weights else c
        for number, c in enumerate(plan.constants)
    ]
    return replace(plan, constants=tuple(kept))
