"""OpenVINO's enumerations: colour formats, ways to resize, ways to pad."""

from __future__ import annotations

from enum import Enum


class ColorFormat(Enum):
    """What the channels of a picture mean; those with planes hold Y at full size, U and V at half.

    NV12 has U and V side by side, I420 one after the other.
    """

    UNDEFINED = 0
    NV12_SINGLE_PLANE = 1
    NV12_TWO_PLANES = 2
    I420_SINGLE_PLANE = 3
    I420_THREE_PLANES = 4
    RGB = 5
    BGR = 6
    GRAY = 7
    RGBX = 8
    BGRX = 9

    @property
    def words(self) -> str:
        """As OpenVINO's texts have it: 'NV12 (single plane)'."""
        kind, _, planes = self.name.partition("_")
        if not planes:
            return kind
        return f"{kind} ({'single plane' if planes == 'SINGLE_PLANE' else 'multi-plane'})"


class ResizeAlgorithm(Enum):
    """How pixels between pixels are made.

    Pixels are squares (ONNX's 'half_pixel'). LINEAR, CUBIC (a = -0.75) and NEAREST look at the
    nearest 2, 4 and 1 pixels of an axis; the PILLOW ones at all that a smaller picture's pixel
    covers, as Pillow's `Image.resize` does.
    """

    RESIZE_LINEAR = 0
    RESIZE_CUBIC = 1
    RESIZE_NEAREST = 2
    RESIZE_BILINEAR_PILLOW = 3
    RESIZE_BICUBIC_PILLOW = 4


class PaddingMode(Enum):
    """What stands beyond the edge: a value, the mirrored content without the edge, or with it."""

    CONSTANT = 0
    REFLECT = 2
    SYMMETRIC = 3
