"""Every error a user can meet. Its message names what was expected and found, and what to do."""

from __future__ import annotations


class ClinferError(Exception):
    """Base of all errors raised on purpose."""


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


class BuildError(DeviceError):
    """An OpenCL program did not build; the message carries the driver's log."""


class CacheError(ClinferError):
    """A cache entry, blob or pack was refused; the message says which check failed."""


class BlobError(CacheError):
    """An exported model is damaged, or made for another device, driver or format."""


class CompileRequiredError(CacheError):
    """CACHE_MODE forbids compiling and a program is missing; names it and the key that differs."""


class UntrustedError(CacheError):
    """A pack or remote entry is not signed by a trusted key, or is not what was signed."""
