"""Names that tell something before anybody looks what is there: of devices, and of files."""

from __future__ import annotations

MODES = ("AUTO", "MULTI", "HETERO", "BATCH")
"""What a name of several devices begins with; docs/devices.md says what each does."""

PICTURES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"]
)
"""How names of pictures end, in small letters."""


def mode_of(name: str) -> str:
    """What stands before the colon, in capitals."""
    return name.partition(":")[0].strip().upper()


def is_virtual(name: object) -> bool:
    """Whether a name may stand for several devices."""
    return isinstance(name, str) and mode_of(name) in MODES
