"""Binding: a plan's sizes become numbers for given input shapes. Needs no device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.errors import InputError, ShapeError
from clinfer.lowering.plan import (
    Block,
    BranchStep,
    Buffer,
    Constraint,
    LaunchStep,
    LoopStep,
    Plan,
    PlanPort,
    Reach,
    SizesStep,
)
from clinfer.sizes import name_in_file
from clinfer_kernels import dims as dim_algebra
from clinfer_kernels.dim_json import to_json
from clinfer_kernels.dims import RELATIONS, Dim, Expr

if TYPE_CHECKING:
    from clinfer.lowering.tape import Tape

MOST_ELEMENTS = 2**31 - 2**22
"""Kernels count elements in `int`; the rest is for tiles that go beyond a matrix's edge."""


_MOST_KEPT = 1024  # sets of values of symbols, of a loop's steps


class BoundLaunch(NamedTuple):
    """A launch with every size known.

    `args` are ('buffer', index), (C type, value) or ('local', bytes).
    """

    program: int
    args: tuple[tuple[str, int], ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    label: str
    flops: int = 0
    problem: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to launch: some size is zero, or others are for these sizes."""
        return 0 in self.global_size


class Sizes:
    """Values of symbols, and of the expressions over them, each computed once."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)
        self._known: dict[Expr, int] = {}
        self._taped: dict[int, int] = {}
        self._tape: Tape | None = None  # kept, so that what `_taped` names by its `id` is alive

    def __call__(self, dim: Dim) -> int:
        """The value of a size; `KeyError` names a symbol that is not bound yet."""
        if isinstance(dim, int):
            return dim
        value = self._taped.get(id(dim))  # comparing expressions takes longer than all the rest
        if value is not None:
            return value
        value = self._known.get(dim)
        if value is None:
            value = self._known[dim] = dim_algebra.evaluate(dim, self.values)
        return value

    def bind(self, symbol: str, value: int) -> None:
        """Adds a symbol, or gives it another value."""
        self.bind_all({symbol: value})

    def bind_all(self, more: Mapping[str, int]) -> None:
        """The same for several."""
        # What is known may be a memo's, which is of the values before; a symbol that had none
        # changes nothing of it.
        is_new = self.values.keys().isdisjoint(more)
        self._known = self._known.copy() if is_new else {}
        if not is_new:
            self._taped = {}
        self.values.update(more)

    def extended(self, more: Mapping[str, int]) -> Sizes:
        """These, and values of other symbols."""
        made = Sizes(self.values)
        made._known, made._taped, made._tape = self._known, self._taped, self._tape
        made.bind_all(more)
        return made

    def forget(self, names: Iterable[str]) -> None:
        """Lets symbols have no value any more."""
        for name in names:
            self.values.pop(name, None)
        self._known, self._taped = {}, {}

    def fill(self, tape: Tape) -> None:
        """Computes all sizes of a tape at once."""
        self._tape = tape
        try:
            self._taped = tape(self.values)
        except ArithmeticError:  # each is computed where it is needed
            self._taped = {}

    def recall(self, memo: dict[Any, dict[Expr, int]]) -> None:
        """Takes over what was computed before from the same values, and keeps what will be."""
        if len(memo) > _MOST_KEPT:
            memo.clear()
        self._known = memo.setdefault(tuple(self.values.items()), self._known)


def bind_inputs(
    plan: Plan, shapes: Sequence[tuple[int, ...] | None], tape: Tape | None = None
) -> Sizes:
    """Symbol values for input shapes (None for a host object); of a `tape` all sizes at once.

    Raises `InputError` naming the input where a shape does not fit, `ShapeError` where two sizes
    that must agree do not.
    """
    values: dict[str, int] = {}
    for port, shape in zip(plan.inputs, shapes, strict=True):
        if port.shape is not None and shape is not None:
            _bind_port(port, port.shape, shape, values)
    sizes = Sizes(values)
    if tape is not None and plan.input_symbols <= values.keys():
        sizes.fill(tape)
    for port, shape in zip(plan.inputs, shapes, strict=True):
        if port.shape is None or shape is None:
            continue
        for dim, found in zip(port.shape, shape, strict=True):
            if sizes(dim) != found:
                raise _shape_error(port, shape, f"{dim} is {sizes(dim)} here")
    check_sizes(plan.requirements, sizes)
    return sizes


def check_sizes(
    requirements: Iterable[Constraint | Reach], sizes: Sizes
) -> list[Constraint | Reach]:
    """Raises `ShapeError` where sizes are not as the model needs them, or a view leaves its buffer.

    Gives back what depends on sizes that a host step will give, to be checked then.
    """
    return [requirement for requirement in requirements if not _is_met(requirement, sizes)]


def _is_met(requirement: Constraint | Reach, sizes: Sizes) -> bool:
    """Whether it holds; False where that cannot be told yet. Raises `ShapeError` otherwise."""
    try:
        check_requirement(requirement, sizes)
    except KeyError:  # a size that a host step will give
        return False
    return True


def check_requirement(requirement: Constraint | Reach, sizes: Callable[[Dim], int]) -> None:
    """Raises `ShapeError` where it does not hold, KeyError where a size is not known yet."""
    if isinstance(requirement, Reach):
        check_reach(requirement, sizes)
    else:
        check_constraint(requirement, sizes)


def required_sizes(requirement: Constraint | Reach) -> tuple[Dim, ...]:
    """The sizes whose values decide whether it holds."""
    if isinstance(requirement, Constraint):
        return requirement.left, requirement.right
    return (*requirement.shape, *requirement.strides, requirement.offset, requirement.size)


def check_constraint(constraint: Constraint, sizes: Callable[[Dim], int]) -> None:
    """Raises `ShapeError` where the constraint does not hold for these sizes."""
    left, right = sizes(constraint.left), sizes(constraint.right)
    if not RELATIONS[constraint.relation](left, right):
        raise ShapeError(
            f"{constraint.message}; for these input shapes they are {left} "
            f"({constraint.left}) and {right} ({constraint.right})"
        )


def check_reach(reach: Reach, sizes: Callable[[Dim], int]) -> None:
    """Raises `ShapeError` where the view leaves its buffer for these sizes."""
    counts = [sizes(n) for n in reach.shape]
    if 0 in counts:
        return
    first = last = sizes(reach.offset)
    total = 1
    for count, stride in zip(counts, reach.strides, strict=True):
        if count < 0:
            raise ShapeError(f"{reach.label}: a size of {count}; sizes are at least 0")
        total *= count
        step = (count - 1) * sizes(stride)
        if step > 0:
            last += step
        else:
            first += step
    size = sizes(reach.size)
    if reach.is_counted and max(total, size) > MOST_ELEMENTS:
        raise ShapeError(
            f"{reach.label}: {max(total, size)} elements, where kernels count up to "
            f"{MOST_ELEMENTS}; use smaller inputs"
        )
    if first < 0 or last >= size:
        raise ShapeError(
            f"{reach.label}: for these sizes it would read or write elements {first} to {last} of "
            f"an operand that has {size}; give operands whose shapes fit each other"
        )


def _bind_port(
    port: PlanPort, expected: Sequence[Dim], shape: Sequence[int], values: dict[str, int]
) -> None:
    if len(expected) != len(shape):
        raise _shape_error(port, shape, f"it has {len(shape)} dimensions")
    for dim, found in zip(expected, shape, strict=True):
        if isinstance(dim, int):
            if dim != found:
                raise _shape_error(port, shape, f"{found} where {dim} is expected")
            continue
        name = symbol_name(dim)
        if name is None:
            continue
        if values.setdefault(name, found) != found:
            said = name_in_file(name)
            raise _shape_error(port, shape, f"'{said}' is {values[name]} in another dimension")


def symbol_name(dim: Dim) -> str | None:
    """The name, where a size is just one symbol."""
    text = to_json(dim)
    return text if isinstance(text, str) else None


def _shape_error(port: PlanPort, shape: Sequence[int], why: str) -> InputError:
    expected = "[" + ", ".join(name_in_file(str(d)) for d in port.shape or ()) + "]"
    return InputError(
        f"input '{port.name}' has shape {list(shape)}, but the model expects {expected}: {why}. "
        "Give an array of that shape, or reshape the model before compiling it"
    )


def bind_launch(step: LaunchStep, sizes: Callable[[Dim], int]) -> BoundLaunch:
    """The launch with numbers for sizes; an empty one where they ask for another."""
    if not sizes(step.when):
        return BoundLaunch(step.program, (), (0,), step.local_size, step.label)
    args: list[tuple[str, int]] = []
    for arg in step.args:
        if arg.kind == "buffer":
            args.append(("buffer", arg.buffer))
        elif arg.kind == "local":
            args.append(("local", sizes(arg.value)))
        else:
            args.append((arg.ctype, sizes(arg.value)))
    return BoundLaunch(
        step.program,
        tuple(args),
        tuple(sizes(d) for d in step.global_size),
        step.local_size,
        step.label,
        sizes(step.flops),
        step.problem,
    )


def read_sizes(step: SizesStep, read: Sequence[int], sizes: Sizes) -> dict[str, int]:
    """The sizes that a step gives, from what it has read.

    Raises `InputError` where an element is not as it must be, `ShapeError` where sizes are not.
    """
    own = sizes.extended(dict(zip(step.names, read, strict=True)))
    for name, check in step.checks:
        if not own(check.low) <= own.values[name] < own(check.high):
            raise InputError(check.message(own, own.values[name]))
    for name, value in step.definitions:
        own.values[name] = own(value)
    for constraint in step.constraints:
        check_constraint(constraint, own)
    given = {name: own.values[name] for name in step.gives}
    if min(given.values(), default=0) < 0:
        raise ShapeError(f"{step.label}: a size of {min(given.values())}; sizes are at least 0")
    return given


class Closed:
    """The blocks of a plan that do not run for some sizes; nothing of them is bound."""

    def __init__(self, plan: Plan, sizes: Sizes) -> None:
        self._errors: dict[tuple[int, int, str], ShapeError] = {}
        self._ranges: list[tuple[int, int]] = []
        for step in plan.steps:
            if isinstance(step, BranchStep):
                holds = decided(plan, step, sizes)
                for number, block in enumerate(step.blocks):
                    if holds is None or holds == (number == 0):
                        self._try(block, sizes)
                    else:
                        self._ranges.append((block.first, block.end))
            elif isinstance(step, LoopStep):
                self._try(step.block, sizes)

    def _try(self, block: Block, sizes: Sizes) -> None:
        try:
            enter(block, sizes)
        except ShapeError as error:
            self._errors[block[:3]] = error
            self._ranges.append((block.first, block.end))

    @property
    def is_any(self) -> bool:
        """Whether there are some."""
        return bool(self._ranges)

    def why(self, block: Block) -> ShapeError | None:
        """What is wrong with the sizes, where a block cannot run."""
        return self._errors.get(block[:3])

    def has_step(self, number: int) -> bool:
        """Whether a step cannot run."""
        return any(first <= number < end for first, end in self._ranges)

    def has(self, buffer: Buffer) -> bool:
        """Whether only steps that cannot run touch a buffer."""
        return any(first <= buffer.first and buffer.last < end for first, end in self._ranges)


def decided(plan: Plan, step: BranchStep, sizes: Sizes) -> bool | None:
    """Whether the condition of a branch holds, where sizes that are bound decide it."""
    buffer = plan.buffers[step.condition.buffer]
    if buffer.kind != "sizes" or len(buffer.content) != 1:
        return None
    try:
        return bool(sizes(buffer.content[0]))
    except KeyError:  # a size that a host step will give
        return None


def enter(block: Block, sizes: Sizes) -> list[Constraint | Reach]:
    """`check_sizes` for a block that is to run. Raises `ShapeError` where it never can."""
    require_runnable(block)
    return check_sizes(block.requirements, sizes)


def require_runnable(block: Block) -> None:
    """Raises `ShapeError` for a block that fits no sizes."""
    if block.error:
        raise ShapeError(f"{block.label}: {block.error}")
