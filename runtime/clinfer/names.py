"""Names of devices: which stand for several, before anybody looks what is there."""

from __future__ import annotations

MODES = ("AUTO", "MULTI", "HETERO", "BATCH")
"""What a name of several devices begins with; docs/devices.md says what each does."""


def mode_of(name: str) -> str:
    """What stands before the colon, in capitals."""
    return name.partition(":")[0].strip().upper()


def is_virtual(name: object) -> bool:
    """Whether a name may stand for several devices."""
    return isinstance(name, str) and mode_of(name) in MODES
