"""`--shape` and its like: shapes for a model's inputs, in clinfer's words or in benchmark_app's."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinfer.core import Core
    from clinfer.graph.model import Model

Sizes = list[int | str | None]
Shapes = list[tuple[str, Sizes]]
"""By the input's name; '' is the model's only input."""

# benchmark_app's: 'x[1,3,?,?],y[1]' or '[1,3,224,224]'; of a name and one or more shapes.
_GROUP = re.compile(r"\s*(?P<name>[^\[\],=]*)(?P<shapes>(?:\[[^\[\]]*\])+)\s*(?:,|$)")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


def shape_argument(parser: argparse.ArgumentParser, *more: str) -> None:
    """--shape NAME=1x128, repeatable; `more` are other words for it."""
    parser.add_argument(
        "--shape",
        *more,
        action="extend",
        default=[],
        metavar="NAME=1x128",
        type=parse_shapes,
        help="fixes an input's shape; '?' or a name keeps a dimension dynamic. Also as "
        "'NAME[1,128],...', or '[1,128]' where there is one input",
    )


def parse_shapes(text: str) -> Shapes:
    """'ids=1x128' or 'ids[1,128],mask[1,128]' -> [('ids', [1, 128]), ...].

    Raises argparse's error for another form.
    """
    if "[" in text:
        return [(name, _only(name, shapes)) for name, shapes in parse_groups(text).items()]
    name, equals, sizes = text.rpartition("=")
    if not (name and equals and sizes):
        raise argparse.ArgumentTypeError(f"expected NAME=1x128, found {text!r}")
    return [(name, [_size(part) for part in sizes.split("x")])]


def parse_groups(text: str) -> dict[str, list[Sizes]]:
    """'x[1,3,64,64][2,3,96,96],y[1][2]' -> the shapes of each input, which are used in turn.

    Raises argparse's error for another form.
    """
    found: dict[str, list[Sizes]] = {}
    end = 0
    while end < len(text):
        group = _GROUP.match(text, end)
        if group is None:
            raise argparse.ArgumentTypeError(f"expected NAME[1,128],..., found {text!r}")
        shapes = _BRACKETS.findall(group["shapes"])
        found[group["name"].strip()] = [
            [_size(part.strip()) for part in shape.split(",")] if shape.strip() else []
            for shape in shapes
        ]
        end = group.end()
    return found


def _only(name: str, shapes: list[Sizes]) -> Sizes:
    if len(shapes) != 1:
        raise argparse.ArgumentTypeError(f"expected one shape of '{name}', found {len(shapes)}")
    return shapes[0]


def _size(part: str) -> int | str | None:
    if part in ("?", "-1"):
        return None
    if part.isdecimal():
        return int(part)
    if part.isidentifier():
        return part
    raise argparse.ArgumentTypeError(f"not a size: {part!r}")


def reshape(
    model: Model, shapes: Sequence[tuple[str, Any]], prepare: Callable[[Model], None] | None = None
) -> None:
    """Gives the inputs their shapes, and then what else `prepare` does to the model.

    Raises `InputError` and `ShapeError` as `Model.reshape`.
    """
    if [name for name, _ in shapes] == [""]:
        model.reshape(shapes[0][1])
    elif shapes:
        model.reshape(dict(shapes))
    if prepare is not None:
        prepare(model)


def reshaped(
    made: Core,
    path: Path,
    shapes: Sequence[tuple[str, Any]],
    prepare: Callable[[Model], None] | None = None,
) -> Model | Path:
    """The path where nothing is changed (a warm start then parses nothing), else the model."""
    if not shapes and prepare is None:
        return path
    model = made.read_model(path)
    reshape(model, shapes, prepare)
    return model
