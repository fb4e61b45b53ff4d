"""Memory that a device with memory of its own copies from and to by itself: pinned, mapped once.

From other memory of the host a driver copies in pieces, through pinned memory of its own, and a
call that should only queue the copy waits for that. So inputs and results pass through a block made
with ALLOC_HOST_PTR and mapped for as long as a session lives, as NVIDIA's 'OpenCL Best Practices
Guide' has it ('Pinned Memory'). It is never handed out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.device.opencl import cl as opencl
from clinfer.log import Log

if TYPE_CHECKING:
    from clinfer.lowering.plan import Array

_LOG = Log("clinfer.device")
MOST = 64 * 2**20
"""Bytes that a session pins at most: what does not fit is copied from where it lies."""

_ALIGNMENT = 64


class Staging:
    """A session's pinned memory, given out piece by piece in each run."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._block: Any = None
        self._used = 0
        self._is_refused = False  # the driver pins no more

    def begin(self, nbytes: int) -> None:
        """Before a run that is going to ask for about so many bytes; nothing is under way."""
        self._used = 0
        held = 0 if self._block is None else self._block.bytes.nbytes
        wanted = min(nbytes, MOST)
        if wanted <= held or self._is_refused:
            return
        self._block = None
        try:
            self._block = opencl().PinnedMemory(self._queue, wanted)
        except opencl().Error as error:  # it is for speed alone; trouble shows in the run itself
            _LOG.debug("no pinned memory of %d bytes: %s", wanted, error)
            self._is_refused = True

    def take(self, nbytes: int) -> Array | None:
        """So many bytes, until the next run begins; None where there are not so many left."""
        start = self._used
        if self._block is None or not 0 < nbytes <= self._block.bytes.nbytes - start:
            return None
        self._used = start + room(nbytes)
        piece: Array = self._block.bytes[start : start + nbytes]
        return piece


def room(nbytes: int) -> int:
    """What a piece takes of a block."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def as_bytes(array: Array, staging: Staging | None) -> Array:
    """An array's content without gaps, in pinned memory where there is some."""
    piece = None if staging is None else staging.take(array.nbytes)
    if piece is None:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    piece.view(array.dtype).reshape(array.shape)[...] = array
    return piece
