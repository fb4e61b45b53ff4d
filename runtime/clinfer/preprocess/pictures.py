"""Pictures for a model that takes tensors: the usual steps, from a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clinfer.errors import PropertyError
from clinfer.preprocess.names import ResizeAlgorithm
from clinfer.preprocess.processor import PrePostProcessor

if TYPE_CHECKING:
    from clinfer.graph.model import Model
    from clinfer.ports import Port


def prepare(
    model: Model,
    *,
    input: str | int | None = None,
    layout: str = "NHWC",
    model_layout: str = "NCHW",
    resize: str | None = None,
    reverse_channels: bool = False,
    mean: Sequence[float] = (),
    scale: Sequence[float] = (),
) -> None:
    """Makes an input, the only one where none is named, take uint8 pictures of that layout.

    With `resize` ('linear', 'cubic' ...) they may have any size. `mean` is subtracted and `scale`
    divides, one value or one for each channel. Raises `InputError`, `ShapeError`, and
    `PropertyError` for a way to resize that there is not.
    """
    ppp = PrePostProcessor(model)
    info = ppp.input(input)
    info.tensor().set_element_type("u8").set_layout(layout)
    info.model().set_layout(model_layout)
    steps = info.preprocess()
    if resize is not None:
        ways = {name.removeprefix("RESIZE_").lower(): way for name, way in _ways().items()}
        if resize not in ways:
            raise PropertyError(f"resize: expected one of {', '.join(ways)}, found {resize!r}")
        info.tensor().set_spatial_dynamic_shape()
        steps.resize(ways[resize])
    if reverse_channels:
        steps.reverse_channels()
    if mean or scale:
        steps.convert_element_type("f32")
    if mean:
        steps.mean(list(mean))
    if scale:
        steps.scale(list(scale))
    ppp.build()


def has_size(port: Port) -> bool:
    """Whether the model fixes the sizes of all but the first dimension."""
    return port.shape is not None and all(isinstance(size, int) for size in port.shape[1:])


def _ways() -> dict[str, Any]:
    return dict(ResizeAlgorithm.__members__)
