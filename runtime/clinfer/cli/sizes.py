"""Numbers for the sizes that a model leaves free: such that its graph accepts them.

What is tried is checked as a run would check it, by the plan's requirements; nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING

from clinfer.errors import ClinferError, InputError, ShapeError, listed
from clinfer.lowering.binding import Sizes, check_requirement, symbol_name
from clinfer.lowering.plan import Constraint, Plan, PlanPort, Reach
from clinfer_kernels.dims import Dim, symbols

if TYPE_CHECKING:
    from clinfer.ports import Port

# What is tried for a size by what it counts, the most usual first. Sides of pictures are multiples
# of 32, which networks that halve them five times need, and the odd ones some were trained with.
_USUAL = {
    "length": (128, 64, 32, 16, 8, 4, 2, 1),
    "side": (224, 256, 320, 512, 640, 128, 64, 32, 299, 1),
    "batch": (1,),
}
_CHANNELS = 4  # the most that a picture has, where they come last
Limits = Mapping[str, tuple[int, int | None]]


def free_sizes(plan: Plan) -> list[str]:
    """The names of the sizes that the inputs leave free."""
    dims = chain.from_iterable(port.shape or () for port in plan.inputs)
    return list(dict.fromkeys(name for dim in dims for name in symbols(dim)))


def fitting_sizes(
    plan: Plan, ports: Sequence[Port], known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """A number for each free size; those `known` keep theirs.

    Raises `InputError` that names the sizes, and the option that gives them, where none of the
    usual numbers fits the graph.
    """
    given = dict(known or {})
    free = [name for name in free_sizes(plan) if name not in given]
    if not free:
        return given
    limits = _limits(plan, ports)
    kinds = _kinds(plan)
    requirements = list(plan.requirements)
    wrong: ClinferError | None = None
    for usual in _combinations({kinds[name] for name in free}):
        values = {name: _within(usual[kinds[name]], limits.get(name)) for name in free}
        values.update(given)
        wrong = _fitted(requirements, values, free, limits)
        if wrong is None:
            return values
    raise InputError(
        f"the sizes {listed(free)} are free, and no usual number fits the model ({wrong}): give "
        f"them with {_advice(plan, ports, free)}"
    )


def _combinations(kinds: set[str]) -> Iterator[dict[str, int]]:
    names = [kind for kind in _USUAL if kind in kinds]
    for numbers in product(*(_USUAL[kind] for kind in names)):
        yield dict(zip(names, numbers, strict=True))


def _kinds(plan: Plan) -> dict[str, str]:
    """What each free size counts: 'batch', the 'side' of a picture, or a 'length'."""
    found: dict[str, str] = {}
    for port in plan.inputs:
        sides = _sides(port)
        for axis, dim in enumerate(port.shape or ()):
            kind = "side" if axis in sides else "batch" if axis == 0 else "length"
            for name in symbols(dim):
                if found.get(name) != "batch":
                    found[name] = kind
    return found


def _sides(port: PlanPort) -> tuple[int, ...]:
    """The axes of height and width, where both are free: [n, c, h, w] or [n, h, w, c]."""
    shape = port.shape or ()
    if len(shape) != 4:
        return ()
    last = shape[3]
    axes = (1, 2) if isinstance(last, int) and last <= _CHANNELS else (2, 3)
    return axes if not any(isinstance(shape[axis], int) for axis in axes) else ()


def _limits(plan: Plan, ports: Sequence[Port]) -> Limits:
    found: dict[str, tuple[int, int | None]] = {}
    for planned, port in zip(plan.inputs, ports, strict=True):
        for axis, bounds in port.bounds.items():
            name = symbol_name((planned.shape or ())[axis])
            if name is not None:
                found[name] = bounds
    return found


def _within(number: int, limits: tuple[int, int | None] | None) -> int:
    least, most = limits or (0, None)
    return max(least, number if most is None else min(number, most))


def _fitted(
    requirements: Sequence[Constraint | Reach],
    values: dict[str, int],
    free: Sequence[str],
    limits: Limits,
) -> ShapeError | None:
    """Changes free values until all requirements hold; None, or the one that could not be met.

    A requirement that fails gets one of its sizes changed: by what its sides differ in, as where
    'all tokens' are 'past' and 'new' ones, or to one of the model's other sizes. Each size changes
    once.
    """
    open_sizes = set(free)
    while True:
        failing = _first_failing(requirements, values)
        if failing is None:
            return None
        requirement, error = failing
        mended = _mended(requirement, values, open_sizes, limits)
        if mended is None:
            return error
        open_sizes.remove(mended)


def _first_failing(
    requirements: Sequence[Constraint | Reach], values: Mapping[str, int]
) -> tuple[Constraint | Reach, ShapeError] | None:
    sizes = Sizes(values)
    for requirement in requirements:
        error = _error(requirement, sizes)
        if error is not None:
            return requirement, error
    return None


def _error(requirement: Constraint | Reach, sizes: Callable[[Dim], int]) -> ShapeError | None:
    try:
        check_requirement(requirement, sizes)
    except KeyError:  # a size that a host step will give
        return None
    except ShapeError as error:
        return error
    return None


def _mended(
    requirement: Constraint | Reach, values: dict[str, int], may: set[str], limits: Limits
) -> str | None:
    """The size whose change in `values` makes the requirement hold; None where there is none."""
    if isinstance(requirement, Reach):
        return None
    for name in sorted((symbols(requirement.left) | symbols(requirement.right)) & may):
        before = values[name]
        left, right = Sizes(values)(requirement.left), Sizes(values)(requirement.right)
        nearer = (before + right - left, before - right + left)
        others = (value for other, value in values.items() if other != name)
        for number in dict.fromkeys((*nearer, left, right, *others, 1)):
            values[name] = number
            within = number > 0 and _within(number, limits.get(name)) == number
            if within and _error(requirement, Sizes(values)) is None:
                return name
        values[name] = before
    return None


def _advice(plan: Plan, ports: Sequence[Port], free: Sequence[str]) -> str:
    """'--shape image=1x3xHEIGHTxWIDTH', for each input with a free size."""
    options = []
    for port in ports:
        shape = port.shape or ()
        if any(not isinstance(size, int) for size in shape):
            sizes = "x".join("?" if size is None else str(size) for size in shape)
            options.append(f"--shape {port.name}={sizes}")
    return f"{listed(options)}, with numbers for {listed(free)}"


def data_sizes(
    plan: Plan, ports: Sequence[Port], asked: Mapping[str, Sequence[Sequence[int | str | None]]]
) -> list[dict[str, int]]:
    """The free sizes for each set of shapes asked for; an input with fewer shapes repeats them.

    Raises `InputError` for an input that is not there, and for a shape that does not fit it.
    """
    names = [port.name for port in ports]
    if list(asked) == [""] and len(names) == 1:
        asked = {names[0]: asked[""]}
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise InputError(
            f"-data_shape: the model has no input '{unknown[0]}'; it has {listed(names)}"
        )
    count = max(len(shapes) for shapes in asked.values())
    return [
        fitting_sizes(
            plan,
            ports,
            _sizes_of(plan, {name: shapes[turn % len(shapes)] for name, shapes in asked.items()}),
        )
        for turn in range(count)
    ]


def _sizes_of(plan: Plan, shapes: Mapping[str, Sequence[int | str | None]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for port in plan.inputs:
        asked = shapes.get(port.name)
        if asked is None:
            continue
        expected = port.shape or ()
        text = ",".join(map(str, expected))
        if len(asked) != len(expected):
            raise InputError(f"-data_shape: input '{port.name}' has the shape [{text}]")
        for dim, size in zip(expected, asked, strict=True):
            if not isinstance(size, int):
                raise InputError(f"-data_shape: {size!r} of input '{port.name}' is no number")
            name = symbol_name(dim)
            known = dim if name is None else found.setdefault(name, size)
            if known != size:
                raise InputError(
                    f"-data_shape: a size of input '{port.name}' [{text}] is {known}, found "
                    f"{size}; --shape gives the model another"
                )
    return found
