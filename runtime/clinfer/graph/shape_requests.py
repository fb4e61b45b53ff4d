"""Shapes that `reshape` is asked for, and the limits of dynamic dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinfer.errors import InputError, ShapeError
from clinfer.graph.ir import Graph, Shape, Value
from clinfer.sizes import Bounds, dimension_name
from clinfer_kernels.dims import Dim, Expr, sym

Size = int | str | tuple[int, int | None] | None
ShapeRequest = Any
"""Sizes as `reshape` takes them: a list or tuple, text, or a `PartialShape`."""


def new_shape(
    value: Value, request: ShapeRequest, unnamed: set[str], bounds: dict[str, Bounds]
) -> Shape:
    dims: list[Dim] = []
    for axis, size in enumerate(_sizes(value.name, request)):
        if isinstance(size, str):
            dims.append(sym(size))
        elif size is None or isinstance(size, tuple):
            name = f"{value.name}.{axis}"
            unnamed.add(name)
            dims.append(sym(name))
            bounds.pop(name, None)
            if size is not None:
                bounds[name] = size
        elif size < 0:
            raise ShapeError(f"input '{value.name}': {size} is not a size (-1 stands for any)")
        else:
            dims.append(size)
    if value.shape is not None and len(value.shape) != len(dims):
        raise ShapeError(
            f"input '{value.name}': expected {len(value.shape)} dimensions "
            f"{list(value.shape)}, found {request if isinstance(request, str) else list(request)}"
        )
    return tuple(dims)


def require_bounds(graph: Graph, bounds: dict[str, Bounds]) -> None:
    """Notes the limits of dynamic dimensions, and forgets those that no input has any more."""
    found = {}
    for value in graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            limits = bounds.get(str(dim))
            if limits is None:
                continue
            found[str(dim)] = limits
            least, most = limits
            said = f"input '{value.name}', axis {axis}: {_range(limits)} by reshape"
            graph.require(least, dim, said, "at most")
            if most is not None:
                graph.require(dim, most, said, "at most")
    bounds.clear()
    bounds.update(found)


def _range(limits: Bounds) -> str:
    least, most = limits
    return f"at least {least}" if most is None else f"from {least} to {most}"


def limits_text(value: Value, bounds: Mapping[str, Bounds]) -> str:
    """The limits of a value's dimensions, for the cache's key."""
    found = {str(d): bounds[str(d)] for d in value.shape or () if str(d) in bounds}
    return f" {found}" if found else ""


def _sizes(name: str, request: object) -> list[Size]:
    """The sizes of a shape that somebody asks for. Raises `InputError` for what is no shape."""
    given: Any = request.tolist() if hasattr(request, "tolist") else request
    if isinstance(given, str):
        given = given.strip().removeprefix("[").removesuffix("]").split(",")
    if hasattr(given, "get_max_shape"):  # a PartialShape, ours or OpenVINO's
        given = list(given)
    try:
        items = [_size(s) for s in given] if isinstance(given, (list, tuple)) else [NotImplemented]
    except InputError as error:
        raise InputError(f"input '{name}': {error}") from error
    if NotImplemented in items:
        raise InputError(
            f"input '{name}': a shape is a list of sizes, names or None; found {request!r}"
        )
    return items


def _size(given: Any) -> Any:
    """A size, a name, None for any, the least and the greatest size; else NotImplemented."""
    if hasattr(given, "item") and getattr(given, "ndim", 1) == 0:
        given = given.item()  # NumPy's numbers
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        return None if given == -1 else given
    if isinstance(given, str):
        if ".." not in given and not given.strip().isdigit():
            return dimension_name(given.strip())
    elif not isinstance(given, (tuple, list)) and not hasattr(given, "min_length"):
        return NotImplemented
    from clinfer.api.shapes import Dimension

    limits = Dimension(given)
    if limits.is_static:
        return limits.min_length
    name = getattr(given, "name", None)
    if isinstance(name, str):
        return name
    most = None if limits.max_length == -1 else limits.max_length
    return None if (limits.min_length, most) == (0, None) else (limits.min_length, most)


def bind_names(value: Value, shape: Shape, bound: dict[str, Dim]) -> None:
    """Notes what the new shape says about the named dimensions of the old one."""
    for old, new in zip(value.shape or (), shape, strict=False):
        if not isinstance(old, Expr) or old == new or old != sym(str(old)):
            continue
        known = bound.setdefault(str(old), new)
        if known != new:
            raise ShapeError(
                f"dimension '{old}' is {known} in one input and {new} in input '{value.name}'"
            )
