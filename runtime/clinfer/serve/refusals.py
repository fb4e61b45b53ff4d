"""What a request is refused with: one table from errors to codes of HTTP and gRPC."""

from __future__ import annotations

from typing import NamedTuple

from clinfer.errors import (
    ClinferError,
    InputError,
    OutOfMemoryError,
    PropertyError,
    ShapeError,
)


class Kind(NamedTuple):
    """`http` is a status; `grpc` the name of a member of `grpc.StatusCode`."""

    http: int
    grpc: str


INVALID = Kind(400, "INVALID_ARGUMENT")
UNAUTHENTICATED = Kind(401, "UNAUTHENTICATED")
FORBIDDEN = Kind(403, "PERMISSION_DENIED")
NOT_FOUND = Kind(404, "NOT_FOUND")
SLOW = Kind(408, "DEADLINE_EXCEEDED")
TOO_LARGE = Kind(413, "RESOURCE_EXHAUSTED")
UNSUPPORTED = Kind(415, "UNIMPLEMENTED")
CANCELLED = Kind(499, "CANCELLED")
UNLOADABLE = Kind(500, "FAILED_PRECONDITION")
INTERNAL = Kind(500, "INTERNAL")
UNAVAILABLE = Kind(503, "UNAVAILABLE")
TIMEOUT = Kind(504, "DEADLINE_EXCEEDED")

_MOST_WORDS = 1000

_KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    (InputError, INVALID),
    (ShapeError, INVALID),
    (PropertyError, INVALID),
    (OutOfMemoryError, UNAVAILABLE),
)


class RefusedError(ClinferError):
    """A request that is not served; `kind` says which code the client gets."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def kind_of(error: BaseException) -> Kind:
    """The codes for an error; one that is nobody's fault outside is INTERNAL."""
    if isinstance(error, RefusedError):
        return error.kind
    return next((kind for known, kind in _KINDS if isinstance(error, known)), INTERNAL)


def words_of(error: BaseException) -> str:
    """What the client is told: clinfer's own messages; of a fault only that there is one.

    No more than gRPC's clients take: a message may quote what was sent.
    """
    if isinstance(error, ClinferError):
        text = str(error)
        return text if len(text) <= _MOST_WORDS else f"{text[: _MOST_WORDS - 4]} ..."
    return "a fault of the server's; its log has the details under the request's id"
