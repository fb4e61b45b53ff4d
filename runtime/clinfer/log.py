"""What is logged to standard error: CLINFER_LOG says how much.

Python's `logging` is loaded with the first message that somebody may see: most processes have none,
and a warm start has no time for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from clinfer import config

if TYPE_CHECKING:
    import logging

_waiting: list[str] = []
_told: list[str] = []


def follow_environment() -> None:
    """Sets the level of the logger 'clinfer', and where nobody else has, a handler for it.

    With the first message, where `logging` is not loaded. Raises `PropertyError` for a value of
    CLINFER_LOG that is not known.
    """
    _waiting[:] = [config.LOG.get()]
    if "logging" in sys.modules or _waiting[0] in ("info", "debug"):
        level = _waiting[0]
        _logger("clinfer")
        if level == "debug":
            _tell_versions()


def _tell_versions() -> None:
    """Once in a process."""
    import platform

    from clinfer.version import __version__

    if not _told:
        _told.extend((__version__, platform.python_version(), platform.platform()))
        Log("clinfer").debug("clinfer %s, Python %s, %s", *_told)


class Log:
    """A logger by name, as `logging.getLogger` gives."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def shows_debug(self) -> bool:
        """Whether somebody sees messages for debugging, so that making one may cost time."""
        if "logging" not in sys.modules:
            return False
        import logging

        return _logger(self._name).isEnabledFor(logging.DEBUG)

    def debug(self, text: str, *values: Any) -> None:
        """A message for those who look for a fault."""
        self._write("DEBUG", text, values)

    def info(self, text: str, *values: Any) -> None:
        """A message for those who asked for it."""
        self._write("INFO", text, values)

    def warning(self, text: str, *values: Any) -> None:
        """A message for everybody."""
        self._write("WARNING", text, values)

    def _write(self, level: str, text: str, values: tuple[Any, ...]) -> None:
        # Where `logging` is not loaded, nobody has asked for more than warnings.
        if level != "WARNING" and "logging" not in sys.modules:
            return
        logger = _logger(self._name)
        import logging

        logger.log(getattr(logging, level), text, *values, stacklevel=3)


def _logger(name: str) -> logging.Logger:
    import logging

    if _waiting:
        whole = logging.getLogger("clinfer")
        wanted = _waiting.pop()
        whole.setLevel(logging.CRITICAL + 1 if wanted == "off" else wanted.upper())
        if not whole.hasHandlers():
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(name)s: %(levelname)s: %(message)s"))
            whole.addHandler(handler)
    return logging.getLogger(name)
