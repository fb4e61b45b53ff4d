"""What is logged to standard error: CLINFER_LOG says how much."""

from __future__ import annotations

import logging
import sys

from clinfer import config

_LEVELS = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


def follow_environment() -> None:
    """Sets the level of the logger 'clinfer', and where nobody else has, a handler for it.

    Raises `PropertyError` for a value of CLINFER_LOG that is not known.
    """
    logger = logging.getLogger("clinfer")
    logger.setLevel(_LEVELS[config.LOG.get()])
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
