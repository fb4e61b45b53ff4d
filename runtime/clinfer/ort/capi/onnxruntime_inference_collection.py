"""The classes for sessions, in the place where programs look for them."""

from clinfer.ort.binding import IOBinding
from clinfer.ort.session import InferenceSession
from clinfer.ort.values import OrtDevice, OrtValue, copy_tensors

__all__ = ["IOBinding", "InferenceSession", "OrtDevice", "OrtValue", "Session", "copy_tensors"]

Session = InferenceSession
