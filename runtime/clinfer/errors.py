"""Every error a user can meet. Its message names what was expected and found, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMES = 8
_MOST_CHARACTERS = 2000


class ClinferError(Exception):
    """Base of all errors raised on purpose; they go through `pickle` with their attributes.

    A message is text that a terminal shows as it is, however odd the names in it, and is cut where
    it is very long.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_shown(str(message)))


class ModelError(ClinferError):
    """The model cannot be read: not ONNX, truncated, data missing, opset or operator unknown."""


class UnsupportedError(ClinferError):
    """The model is valid, but something in it cannot run; the message names the node."""


class ShapeError(ClinferError):
    """Shapes do not fit each other; the message names the node or the input."""


class InputError(ClinferError):
    """An input's name, shape, dtype or value does not fit the model."""


class PropertyError(ClinferError):
    """An unknown property, or a value it does not take."""


class DeviceError(ClinferError):
    """No such device, no OpenCL platform, or the device cannot do what is asked."""


class OutOfMemoryError(ClinferError):
    """The host's memory does not suffice; the message names what it was for."""


class BuildError(DeviceError):
    """An OpenCL program did not build: its kernel, and the compiler's first error.

    `log` is all that the compiler said, with the numbered source; `digest` names the program, where
    another one may take its place.
    """

    def __init__(self, message: object, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.digest = ""


class CacheError(ClinferError):
    """A cache entry, blob or pack was refused; the message says which check failed."""


class BlobError(CacheError):
    """An exported model is damaged, or made for another device, driver or format."""


class CompileRequiredError(CacheError):
    """CACHE_MODE forbids compiling and a program is missing; names it and the key that differs."""


class UntrustedError(CacheError):
    """A pack or remote entry is not signed by a trusted key, or is not what was signed."""


class ExtensionError(ClinferError):
    """An operator of `add_extension` is declared wrongly, its function fails, or it is missing."""


class InternalError(ClinferError):
    """A fault of clinfer's own, not of the model or the input: please report it."""


def listed(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """Names for a message: those after the first few are counted, "a, b and 192 more"."""
    texts = [str(name) for name in names]
    if len(texts) <= most:
        return ", ".join(texts)
    return f"{', '.join(texts[:most])} and {len(texts) - most} more"


def _shown(text: str) -> str:
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    if len(text) <= _MOST_CHARACTERS:
        return text
    # What was found, and where, comes first; what to do comes last.
    first, last = _MOST_CHARACTERS * 3 // 4, _MOST_CHARACTERS // 4
    return f"{text[:first]} ... ({len(text) - first - last} characters more) ... {text[-last:]}"
