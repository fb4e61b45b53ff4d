"""Which loops instructions can be written for, and the sizes that they hold for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clinfer.lowering.binding import required_sizes
from clinfer.lowering.plan import (
    AgainStep,
    Block,
    BranchStep,
    Constraint,
    HostValue,
    LaunchStep,
    LoopStep,
    Plan,
    PlanArg,
    Reach,
    SizesStep,
    Step,
    touched,
)
from clinfer_kernels.dims import Dim, symbols

_NUMBERS = ("int", "uint", "long")  # C types of arguments that a step may give another value


def is_playable(plan: Plan, block: Block) -> bool:
    """Whether the steps of a loop's block are such that instructions can do them."""
    for step in plan.steps[block.first : block.end]:
        if isinstance(step, AgainStep):
            pairs = [n for pair in step.moves for n in pair] + [n for p in step.rows for n in p[:2]]
            if step.sizes or any(plan.buffers[number].kind == "host" for number in pairs):
                return False
        elif not isinstance(step, (LaunchStep, SizesStep, BranchStep)):
            return False
    return not block.error


def names_computed(plan: Plan, block: Block) -> set[str]:
    """The symbols that steps of a loop's block read or compute."""
    steps = (s for s in plan.steps[block.first : block.end] if isinstance(s, SizesStep))
    return {name for s in steps for name in (*s.names, *(name for name, _ in s.definitions))}


def sizes_that_decide(plan: Plan, step: LoopStep) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The symbols that instructions of a loop hold for: those from before it, and its steps'.

    What a step of it reads, and computes from that, decides nothing where it is at most the number
    that a launch is given, or what the loop's block requires.
    """
    own = names_computed(plan, step.block)
    computed = _required_in(step.block)
    decide = _symbols(dim for part in step.parts for dim in _of_buffer(plan, part.row))
    for other in plan.steps[step.block.first : step.block.end]:
        if isinstance(other, SizesStep):
            computed |= _symbols(_computed_by(other))
        elif isinstance(other, BranchStep):
            computed = computed.union(*map(_required_in, other.blocks))
        elif isinstance(other, LaunchStep):
            computed |= _symbols(arg.value for arg in other.args if _is_number(arg))
        decide |= _symbols(_had_by(plan, other))
    required = _symbols(dim for r in _other_requirements(plan, step) for dim in required_sizes(r))
    return tuple(sorted((decide | computed) - own)), tuple(sorted((decide | required) & own))


def _required_in(block: Block) -> set[str]:
    return _symbols(dim for r in block.requirements for dim in required_sizes(r))


def _is_number(arg: PlanArg) -> bool:
    return arg.kind == "scalar" and arg.ctype in _NUMBERS


def _symbols(dims: Iterable[Dim]) -> set[str]:
    return {name for dim in dims for name in symbols(dim)}


def _computed_by(step: SizesStep) -> Iterator[Dim]:
    for _, check in step.checks:
        yield from (check.low, check.high)
    for _, dim in step.definitions:
        yield dim
    for constraint in step.constraints:
        yield from required_sizes(constraint)


def _had_by(plan: Plan, step: Step) -> Iterator[Dim]:
    """The sizes of a loop's step but for what it computes."""
    stacks = {part.whole for part in step.rows} if isinstance(step, AgainStep) else set()
    for number in touched(step):
        if number not in stacks:
            yield from _of_buffer(plan, number)
    if isinstance(step, LaunchStep):
        yield from (*step.global_size, step.when)
        yield from (arg.value for arg in step.args if not _is_number(arg))
    elif isinstance(step, SizesStep):
        for value in step.values:
            yield from _of_value(value)
    elif isinstance(step, BranchStep):
        yield from _of_value(step.condition)
    elif isinstance(step, AgainStep):
        yield from (dim for _, dim in step.row_sizes)
        if step.goes_on is not None:
            yield from _of_value(step.goes_on)


def _of_buffer(plan: Plan, number: int) -> Iterator[Dim]:
    buffer = plan.buffers[number]
    yield from (buffer.size, *buffer.content)


def _of_value(value: HostValue) -> Iterator[Dim]:
    if value.tensor is not None:
        yield from (*value.tensor.shape, *value.tensor.strides, value.tensor.offset)


def _other_requirements(plan: Plan, loop: LoopStep) -> Iterator[Constraint | Reach]:
    """All of a plan but those of a loop's block and of branches in it."""
    yield from plan.requirements
    for number, step in enumerate(plan.steps):
        is_in_it = loop.block.first <= number < loop.block.end
        if isinstance(step, (BranchStep, LoopStep)) and step is not loop and not is_in_it:
            for block in step.blocks:
                yield from block.requirements
