"""Binding: a plan's sizes become numbers for given input shapes. Needs no device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from clinfer.errors import InputError, ShapeError
from clinfer.lowering.memory import Arena, Lifetime, least_bytes, plan_arena
from clinfer.lowering.plan import LaunchStep, Plan, PlanPort, touched
from clinfer_kernels import dims as dim_algebra
from clinfer_kernels.dims import Dim, Expr


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
        """Whether there is nothing to launch: some size is zero."""
        return 0 in self.global_size


class Sizes:
    """Values of symbols, and of the expressions over them, each computed once."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = dict(values)
        self._known: dict[Expr, int] = {}

    def __call__(self, dim: Dim) -> int:
        """The value of a size; `KeyError` names a symbol that is not bound yet."""
        if isinstance(dim, int):
            return dim
        if dim not in self._known:
            self._known[dim] = dim_algebra.evaluate(dim, self.values)
        return self._known[dim]

    def bind(self, symbol: str, value: int) -> None:
        """Adds a symbol, found by a host step."""
        self.values[symbol] = value
        self._known.clear()


def bind_inputs(plan: Plan, shapes: Sequence[tuple[int, ...] | None]) -> Sizes:
    """Symbol values for input shapes (None for a host object).

    Raises `InputError` naming the input where a shape does not fit, `ShapeError` where two sizes
    that must agree do not.
    """
    values: dict[str, int] = {}
    for port, shape in zip(plan.inputs, shapes, strict=True):
        if port.shape is not None and shape is not None:
            _bind_port(port, port.shape, shape, values)
    sizes = Sizes(values)
    for port, shape in zip(plan.inputs, shapes, strict=True):
        if port.shape is None or shape is None:
            continue
        for dim, found in zip(port.shape, shape, strict=True):
            if sizes(dim) != found:
                raise _shape_error(port, shape, f"{dim} is {sizes(dim)} here")
    check_constraints(plan, sizes)
    return sizes


def check_constraints(plan: Plan, sizes: Sizes) -> None:
    """Raises `ShapeError` where two sizes differ that the model needs equal."""
    for constraint in plan.constraints:
        try:
            left = sizes(constraint.left)
            right = sizes(constraint.right)
        except KeyError:  # a size that a host step will give
            continue
        if left != right:
            raise ShapeError(
                f"{constraint.message}: {constraint.left} = {left} and "
                f"{constraint.right} = {right} must be equal for these input shapes"
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
            raise _shape_error(port, shape, f"'{name}' is {values[name]} in another dimension")


def symbol_name(dim: Dim) -> str | None:
    """The name, where a size is just one symbol."""
    text = dim_algebra.to_json(dim)
    return text if isinstance(text, str) else None


def _shape_error(port: PlanPort, shape: Sequence[int], why: str) -> InputError:
    expected = "[" + ", ".join(str(d) for d in port.shape or ()) + "]"
    return InputError(
        f"input '{port.name}' has shape {list(shape)}, but the model expects {expected}: {why}. "
        "Give an array of that shape, or reshape the model before compiling it"
    )


def bind_launch(step: LaunchStep, sizes: Callable[[Dim], int]) -> BoundLaunch:
    """The launch with numbers for sizes."""
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


class ArenaPlan(NamedTuple):
    """Where each temporary buffer lives: `offsets` maps its index to bytes in the arena."""

    offsets: Mapping[int, int]
    nbytes: int


def bind_arena(plan: Plan, sizes: Callable[[Dim], int], alignment: int) -> ArenaPlan:
    """The memory plan for bound sizes; offsets are multiples of `alignment` bytes."""
    numbers = _temporaries(plan)
    arena: Arena = plan_arena([_lifetime(plan, i, sizes) for i in numbers], alignment)
    return ArenaPlan(dict(zip(numbers, arena.offsets, strict=True)), arena.nbytes)


class Memory(NamedTuple):
    """A plan's memory in bytes.

    `arena` holds all temporaries and is never smaller than `alive`, the largest set of them that is
    alive in one step; `scratch` is the largest part of it that launches of one node use among
    themselves. `ports` are the inputs' and outputs' own buffers, `weights` the constants.
    """

    arena: int
    alive: int
    scratch: int
    ports: int
    weights: int


def bind_memory(plan: Plan, sizes: Callable[[Dim], int], alignment: int) -> Memory:
    """The figures for bound sizes; `KeyError` where a size is not known."""
    lives = {i: _lifetime(plan, i, sizes) for i in _temporaries(plan)}
    readers: dict[int, set[str]] = {}
    for step in plan.steps:
        for number in touched(step):
            readers.setdefault(number, set()).add(step.label)
    ports = [b.nbytes(sizes) for b in plan.buffers if b.kind in ("input", "output")]
    return Memory(
        arena=bind_arena(plan, sizes, alignment).nbytes,
        alive=least_bytes(list(lives.values())),
        scratch=least_bytes([life for i, life in lives.items() if len(readers[i]) == 1]),
        ports=sum(ports),
        weights=sum(int(c.nbytes) for c in plan.constants),
    )


def _temporaries(plan: Plan) -> list[int]:
    """The buffers in the arena: those that some step touches."""
    return [i for i, b in enumerate(plan.buffers) if b.kind == "temp" and b.first >= 0]


def _lifetime(plan: Plan, number: int, sizes: Callable[[Dim], int]) -> Lifetime:
    buffer = plan.buffers[number]
    return Lifetime(buffer.nbytes(sizes), buffer.first, buffer.last)
