"""Where errors that are not clinfer's become clinfer's: at each public entry and at each node.

What a model or an input may cause is checked where it is read, and raises an error of its own
there. What passes all checks and fails nevertheless is a fault of clinfer's, an `InternalError`;
only memory and depth run out without being asked first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from clinfer.errors import (
    ClinferError,
    InternalError,
    OutOfMemoryError,
    ShapeError,
    UnsupportedError,
)
from clinfer.synonyms import renamed

_MOST_QUOTED = 200
P = ParamSpec("P")
R = TypeVar("R")


class Signal(Exception):  # noqa: N818 - it is no error
    """Says something to the caller, inside clinfer: never an error that a user sees."""


class during:  # noqa: N801 - reads as a statement: `with during("lowering", node.describe):`
    """Turns other errors of a block into clinfer's, naming what was done and to which node."""

    __slots__ = ("_describe", "_doing")

    def __init__(self, doing: str, describe: Callable[[], str]) -> None:
        self._doing = doing
        self._describe = describe

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, (ClinferError, Signal)):
            raise as_ours(error, f"{self._describe()}: {self._doing}") from error


def entry(doing: str, **words: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a public function: it raises clinfer's errors only.

    Arguments that do not fit its signature stay Python's TypeError. `words` are other names of
    keyword arguments, with the function's own.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs and words:
                renamed(words, kwargs, function)
            try:
                return function(*args, **kwargs)
            except ClinferError:
                raise
            except Exception as error:
                inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
                if isinstance(error, TypeError) and not inside:
                    raise
                raise as_ours(error, doing) from error

        return guarded

    return decorate


def as_ours(error: Exception, where: str) -> ClinferError:
    """The clinfer error for one that is not, raised `where`."""
    from clinfer_kernels.dims import TooComplex

    said = first_line(error)
    if isinstance(error, MemoryError):
        return OutOfMemoryError(
            f"{where}: the memory does not suffice ({said}); use smaller inputs, or a smaller model"
        )
    if isinstance(error, RecursionError):
        return UnsupportedError(f"{where}: it is nested too deeply; export a flatter model")
    if isinstance(error, TooComplex):
        return ShapeError(f"{where}: {said}; give the inputs fixed shapes with reshape")
    if isinstance(error, OSError):
        file = "" if error.filename is None else f"'{error.filename}': "
        if isinstance(error, FileNotFoundError) and not file:
            return ClinferError(
                f"{where}: the folder that this process works in is gone; change it"
            )
        return ClinferError(f"{where}: {file}{error.strerror or said}")
    return InternalError(
        f"{where} failed by a fault of clinfer ({type(error).__name__}: {said}); please report it "
        "with the model"
    )


def first_line(error: BaseException) -> str:
    """How what an error says begins; the name of its class where it says nothing.

    onnx's evaluator lists every operator it knows for one that it does not.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[0] if len(lines[0]) <= _MOST_QUOTED else f"{lines[0][:_MOST_QUOTED]} ..."
