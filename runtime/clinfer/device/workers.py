"""Parallel builds in worker processes, for drivers whose compiler holds a lock (PoCL).

Each worker is `python -m clinfer.device.worker`. Messages are frames: a length of 8 bytes, then that
many bytes. The first frame names the device; then each job is one JSON frame, answered by a frame
that starts with 'B' (a binary follows) or 'E' (the compiler's message). A worker that dies or takes
too long costs only the program it was working on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Timer
from typing import IO, TYPE_CHECKING

from clinfer.errors import BuildError

if TYPE_CHECKING:
    from clinfer.device.discover import Device
    from clinfer.device.programs import Progress, SourceProgram

SECONDS_PER_PROGRAM = 300.0
_LARGEST_FRAME = 1 << 30


def write_frame(file: IO[bytes], content: bytes) -> None:
    """Sends one frame."""
    file.write(len(content).to_bytes(8, "little") + content)
    file.flush()


def read_frame(file: IO[bytes]) -> bytes | None:
    """The next frame; None at the end of the stream."""
    head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > _LARGEST_FRAME:
        return None
    content = file.read(size)
    return content if len(content) == size else None


def build_binaries(
    device: Device,
    sources: Sequence[SourceProgram],
    jobs: int,
    progress: Progress | None = None,
    seconds: float = SECONDS_PER_PROGRAM,
) -> list[bytes]:
    """The binaries of the sources, built by `jobs` processes, at most `seconds` for each.

    Raises `BuildError` for the first program, in the order given, that did not build.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    for index in _long_ones_first(sources):
        waiting.put(index)
    results: dict[int, bytes | str] = {}

    def work() -> None:
        worker: _Worker | None = None
        try:
            while True:
                index = waiting.get_nowait()
                if worker is None:
                    worker = _Worker(device)
                results[index] = worker.build(sources[index], seconds)
                if worker.is_dead:
                    worker = None
                if progress is not None:
                    progress(sources[index].entry)
        except Empty:
            return
        finally:
            if worker is not None:
                worker.close()

    with ThreadPoolExecutor(jobs, "clinfer-build") as pool:
        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()
    binaries: list[bytes] = []
    for index in range(len(sources)):
        result = results[index]
        if isinstance(result, str):
            raise BuildError(result)
        binaries.append(result)
    return binaries


def _long_ones_first(sources: Sequence[SourceProgram]) -> list[int]:
    """Long texts take long to build; started first, they do not end last."""
    return sorted(range(len(sources)), key=lambda i: (-len(sources[i].source), i))


class _Worker:
    """One worker process and the pipe to it."""

    def __init__(self, device: Device) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clinfer.device.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self.is_dead = False
        place = {"platform": device.info.platform, "device": device.info.full_name}
        self._send(json.dumps(place).encode())

    def build(self, source: SourceProgram, seconds: float) -> bytes | str:
        """The binary, or the message of what went wrong."""
        timer = Timer(seconds, self._process.kill)
        timer.start()
        try:
            self._send(json.dumps(asdict(source)).encode())
            assert self._process.stdout is not None
            answer = read_frame(self._process.stdout)
        finally:
            expired = not timer.is_alive()
            timer.cancel()
        if answer is None:
            self.is_dead = True
            return self._epitaph(source, seconds if expired else None)
        return answer[1:] if answer[:1] == b"B" else answer[1:].decode("utf-8", "replace")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_pipes()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, content)
        except OSError:  # it has died; reading its answer tells
            pass

    def _epitaph(self, source: SourceProgram, limit: float | None) -> str:
        self._process.kill()
        code = self._process.wait()
        assert self._process.stderr is not None
        log = self._process.stderr.read().decode("utf-8", "replace").strip()
        self._close_pipes()
        why = f"was ended after {limit:.0f} s" if limit is not None else f"died with code {code}"
        return f"kernel '{source.entry}': the compiler's process {why}; it said:\n{log[-4000:]}"

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass


def _environment() -> dict[str, str]:
    """This process's environment, with the places that clinfer was imported from."""
    import clinfer_kernels

    runtime = Path(__file__).resolve().parent.parent.parent
    kernels = Path(str(clinfer_kernels.__file__)).resolve().parent.parent
    places = [str(runtime), str(kernels)]
    known = os.environ.get("PYTHONPATH")
    paths = [*dict.fromkeys(places), *([known] if known else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
