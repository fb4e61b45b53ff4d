"""A build worker's process; `clinfer.device.workers` starts it and says what to build.

It exchanges frames with its starter: a length of 8 bytes, then that many bytes. The first frame
names the device. Then comes a frame per program, one JSON object, answered by a frame that begins
with

    B   the binary follows
    E   JSON follows: the error's message and log
    N   a message follows: this process cannot have the device

An empty frame asks for no program: the compiler is loaded, and nothing is answered.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

_LARGEST_FRAME = 1 << 30
_SECONDS_TO_END = 0.3


def write_frame(file: IO[bytes], content: bytes) -> None:
    """Sends one frame."""
    file.write(len(content).to_bytes(8, "little") + content)
    file.flush()


def read_frame(file: IO[bytes]) -> bytes | None:
    """The next frame; None at the end of the stream, or where it makes no sense."""
    head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > _LARGEST_FRAME:
        return None
    content = file.read(size)
    return content if len(content) == size else None


def main() -> None:
    """Serves jobs until its input ends."""
    # Ctrl-C goes to every process of a terminal; whoever started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PoCL waits for its linker's process, which it cannot where an application ignores SIGCHLD.
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Drivers may print to stdout; answers go to a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs = sys.stdin.buffer
    first = read_frame(jobs)
    if first is None:
        return
    given: SimpleQueue[bytes | None] = SimpleQueue()
    Thread(target=_listen, args=(jobs, given), daemon=True).start()
    from clinfer.device.discover import open_context
    from clinfer.errors import DeviceError

    try:
        context, quirks = open_context(**json.loads(first))
    except DeviceError as error:  # a GPU may be for one process alone
        refusal = b"N" + str(error).encode()
        while (job := given.get()) is not None:
            if job:
                write_frame(answers, refusal)
        return
    while (job := given.get()) is not None:
        if job:
            write_frame(answers, _answer(context, quirks, json.loads(job)))
        else:
            _load_compiler(context, quirks)


def _listen(jobs: IO[bytes], given: SimpleQueue[bytes | None]) -> None:
    """Hands jobs on. At the end of the stream nobody waits for what is being compiled."""
    while (job := read_frame(jobs)) is not None:
        given.put(job)
    given.put(None)
    time.sleep(_SECONDS_TO_END)  # an idle process is gone by then
    from clinfer.device import scratch

    scratch.remove_all()
    os._exit(1)


def _answer(context: Any, quirks: Any, fields: dict[str, Any]) -> bytes:
    from clinfer.device.compiling import compile_to_binary
    from clinfer.device.sources import SourceProgram
    from clinfer.errors import ClinferError

    source = SourceProgram(**{**fields, "local_size": tuple(fields["local_size"])})
    try:
        return b"B" + compile_to_binary(context, source, quirks)
    except ClinferError as error:
        return b"E" + json.dumps([str(error), getattr(error, "log", "")]).encode()


def _load_compiler(context: Any, quirks: Any) -> None:
    """PoCL reads its library of built-in functions, 7 MB of LLVM IR, with its first program.

    No binary is asked for: that would settle the size of groups that this process is for.
    """
    from clinfer.device.compiling import compile_source
    from clinfer.device.sources import SourceProgram

    compile_source(context, SourceProgram("__kernel void nothing(void) {}", "", "nothing"), quirks)


if __name__ == "__main__":
    main()
