"""Pictures as inputs: files that Pillow reads, and the steps that make of them what models take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.errors import ClinferError, InputError, listed
from clinfer.names import PICTURES
from clinfer.ports import index_of

if TYPE_CHECKING:
    from clinfer.graph.model import Model
    from clinfer.ports import Port

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PICTURE_RANK = 4
_OPTIONS = [
    "image_input",
    "image_layout",
    "model_layout",
    "resize",
    "reverse_channels",
    "mean",
    "scale",
]


def arguments(parser: argparse.ArgumentParser) -> None:
    """--image-input, --image-layout, --model-layout, --mean, --scale, --resize ..."""
    group = parser.add_argument_group(
        "pictures", "steps in front of the model, compiled with it (clinfer.preprocess)"
    )
    group.add_argument(
        "--image-input", metavar="NAME", help="the input that takes pictures (default: the only)"
    )
    group.add_argument(
        "--image-layout", metavar="NHWC", help="the layout of what is given, of type uint8"
    )
    group.add_argument(
        "--model-layout", metavar="NCHW", help="the layout that the model takes (default: NCHW)"
    )
    group.add_argument(
        "--resize",
        nargs="?",
        const="linear",
        choices=("linear", "cubic", "nearest", "bilinear_pillow", "bicubic_pillow"),
        help="takes any size and makes the model's of it (default: linear)",
    )
    group.add_argument(
        "--reverse-channels", action="store_true", help="the model takes BGR, or gives RGB to it"
    )
    for name, what in (("--mean", "subtracted from"), ("--scale", "that divides")):
        group.add_argument(
            name,
            type=_numbers,
            metavar="V[,V,V]",
            help=f"a value {what} the pixels, or one for each channel",
        )


def preparation(options: argparse.Namespace) -> Callable[[Model], None] | None:
    """What the arguments say is done to pictures; None where there are none."""
    given = [text for text in getattr(options, "input", []) if is_picture(Path(text))]
    if not given and not any(getattr(options, name) for name in _OPTIONS):
        return None
    return lambda model: _prepare(model, options, given)


def _prepare(model: Model, options: argparse.Namespace, given: Sequence[str]) -> None:
    from clinfer.preprocess.pictures import has_size, prepare

    name = _input_name(model, options, given)
    sized = has_size(model.inputs[index_of(model.inputs, name, "input")])
    prepare(
        model,
        input=name,
        layout=options.image_layout or "NHWC",
        model_layout=options.model_layout or "NCHW",
        resize=options.resize or ("linear" if given and sized else None),
        reverse_channels=options.reverse_channels,
        mean=options.mean or (),
        scale=options.scale or (),
    )


def _input_name(model: Model, options: argparse.Namespace, given: Sequence[str]) -> Any:
    if options.image_input is not None:
        return options.image_input
    named = [text.partition("=")[0] for text in given if "=" in text]
    if named:
        return named[0]
    pictures = [p for p in model.inputs if p.shape is not None and len(p.shape) == _PICTURE_RANK]
    if len(pictures) != 1:
        raise InputError(
            f"{len(pictures)} inputs may take pictures, of {listed(p.name for p in model.inputs)}: "
            "say which with --image-input NAME"
        )
    return pictures[0].name


def _numbers(text: str) -> list[float]:
    """'0.5' or '1,2,3'; raises argparse's error for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"expected a number, or one for each channel: 1,2,3; found {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def is_picture(path: Path) -> bool:
    """Whether a file's name ends as those of pictures do."""
    return path.suffix.lower() in PICTURES


def only(argument: str, names: Sequence[str]) -> int:
    """The number of the only input. Raises `InputError` where there are several."""
    if len(names) != 1:
        raise InputError(
            f"--input {argument}: say which input it is: NAME={argument}; one of {listed(names)}"
        )
    return 0


def load(path: Path, port: Port, argument: str) -> Any:
    """A picture as uint8, in the order of dimensions and with the channels that the input has.

    Raises `InputError` where the input takes no pictures or the file is none.
    """
    last, channels = _channels(port, argument)
    if not path.exists():
        raise InputError(f"--input {argument}: '{path}' does not exist")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ClinferError(
            f"--input {argument}: pictures need Pillow: pip install 'clinfer[cli]'"
        ) from None
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(_MODES[channels]))
    except UnidentifiedImageError:
        raise InputError(f"--input {argument}: '{path}' is no picture that Pillow reads") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--input {argument}: '{path}' cannot be read: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    batches = (1,) * (len(port.shape or ()) - pixels.ndim)
    ordered = pixels if last else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(ordered.reshape(*batches, *ordered.shape))


def _channels(port: Port, argument: str) -> tuple[bool, int]:
    """Whether the channels come last, and how many there are."""
    shape: tuple[Any, ...] = port.shape or ()
    if len(shape) in (_PICTURE_RANK - 1, _PICTURE_RANK):
        for last, size in ((True, shape[-1]), (False, shape[-3])):
            if isinstance(size, int) and size in _MODES:
                return last, size
    raise InputError(
        f"--input {argument}: input '{port.name}' {port.partial_shape} takes no pictures: expected "
        "1, 3 or 4 channels, first or last"
    )
