"""ONNX Runtime's functions for the whole process: how much is logged, and what has no effect."""

from __future__ import annotations

import logging

from clinfer.log import Log
from clinfer.ort.errors import InvalidArgument
from clinfer.version import __version__

VERSION = "1.22.0"
"""The version of ONNX Runtime whose surface this is, for programs that compare it."""

_LOG = Log(__name__)

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def get_version_string() -> str:
    """The version of ONNX Runtime whose surface this is."""
    return VERSION


def get_build_info() -> str:
    """Says whose the implementation is."""
    return f"clinfer {__version__}, with the surface of ONNX Runtime {VERSION}"


def set_default_logger_severity(severity: int) -> None:
    """0: everything, 1: information, 2: warnings, 3: errors, 4: what is fatal."""
    if severity not in range(len(_LEVELS)):
        raise InvalidArgument(f"Invalid logging severity. {severity}; 0 to 4 expected")
    from clinfer.ort.loading import core

    core()  # it follows CLINFER_LOG; what is set here comes later
    logging.getLogger("clinfer").setLevel(_LEVELS[severity])


def set_default_logger_verbosity(verbosity: int) -> None:
    """Taken, without effect: there are no grades of what severity 0 logs."""


def disable_telemetry_events() -> None:
    """Nothing is ever sent anywhere."""


def enable_telemetry_events() -> None:
    """Nothing is ever sent anywhere."""


def set_seed(seed: int) -> None:
    """Taken with a warning: random operators take their seed from the model."""
    _LOG.warning(
        "set_seed(%r) has no effect: random operators without a `seed` attribute in the model give "
        "other numbers in every run",
        seed,
    )
