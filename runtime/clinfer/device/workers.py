"""Parallel builds in worker processes, for drivers whose compiler holds a lock (PoCL).

A `Pool` keeps its processes for the next build, and ends them when none has come for a while. A
worker that dies or takes too long costs only the program it was working on.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager, suppress
from threading import Event, Lock, Timer
from time import perf_counter
from typing import TYPE_CHECKING

from clinfer.device import link_libraries
from clinfer.device.sources import failed
from clinfer.device.tasks import Tasks
from clinfer.device.worker import read_frame, write_frame
from clinfer.errors import BuildError
from clinfer.log import Log
from clinfer.threads import executor

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from clinfer.device.discover import Device
    from clinfer.device.sources import SourceProgram

_LOG = Log("clinfer.device")
SECONDS_IDLE = 20.0
SECONDS_DEAF = 0.1
# A process takes as long to start as two or three programs to build; a model has 7 to 15.
MOST_PREPARED = 4
_LONGEST_MESSAGE = 4000
_MOST_PROGRAMS = 50
Kind = tuple[int, ...]
"""What a process is for: work-groups of one size; () for all of them."""
Done = Callable[[int, "bytes | BuildError", float], None]
"""Told of each program as it is done: its index, the binary or what went wrong, seconds taken."""
Wanted = Callable[[int], bool]
"""Asked of each program, by its index and in some thread, just before it is built."""
_START = "import sys; sys.path[:] = {path!r}; from clinfer.device.worker import main; main()"


class Worker:
    """One worker process and the pipes to it. Raises `OSError` where it cannot be started."""

    def __init__(self, place: dict[str, str]) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise OSError("there is no Python interpreter to start")
        # Not through PYTHONPATH: `-I` keeps the current directory out of where modules come from.
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
        command = [sys.executable, "-I", *_flags(), "-c", _START.format(path=path)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
        )
        self.is_dead = False
        self.is_abandoned = False
        self.kind: Kind | None = None
        self._programs = 0
        self._send(json.dumps(place).encode())

    def load_compiler(self) -> None:
        """Lets it load the compiler while nothing is to be built; does not wait for that."""
        self._send(b"")

    @property
    def is_spent(self) -> bool:
        """Whether the process has built enough: compilers keep some memory of every program."""
        return self._programs >= _MOST_PROGRAMS

    def build(self, source: SourceProgram, kind: Kind, seconds: float) -> bytes | BuildError:
        """The binary, or what went wrong. All programs of one process are of the same kind.

        Raises `OSError` where the process cannot have the device.
        """
        self.kind = kind
        self._programs += 1
        expired = Event()

        def end() -> None:
            expired.set()
            self._process.kill()

        timer = Timer(seconds, end)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:  # the system gives no more threads
            raise OSError(str(error)) from error
        try:
            self._send(json.dumps(source._asdict()).encode())
            assert self._process.stdout is not None
            answer = read_frame(self._process.stdout)
        finally:
            timer.cancel()
        if answer is None:
            return self._epitaph(source, seconds if expired.is_set() else None)
        if answer[:1] == b"B":
            return answer[1:]
        if answer[:1] == b"N":
            self.is_dead = True
            self.close()
            raise OSError(f"it cannot have the device: {answer[1:].decode('utf-8', 'replace')}")
        message, log = json.loads(answer[1:])
        if log:
            _LOG.info("kernel '%s' does not build:\n%s", source.entry, log)
        return BuildError(message, log)

    def abandon(self) -> None:
        """Tells the process, from another thread, that nobody waits for it any more: it ends."""
        self.is_abandoned = True
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        """Closes the pipes; the process then ends by itself, and is not waited for."""
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # unsent bytes for a process that has gone
                    continue

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, content)
        except (OSError, ValueError):  # it has died, or is abandoned; reading its answer tells
            return

    def _epitaph(self, source: SourceProgram, limit: float | None) -> BuildError:
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read().decode("utf-8", "replace").strip()[-_LONGEST_MESSAGE:]
        self.is_dead = True
        self.close()
        why = f"was ended after {limit:g} s" if limit is not None else f"died with code {code}"
        _LOG.info("the compiler's process of kernel '%s' %s:\n%s", source.entry, why, log)
        return failed(source, log, f"the compiler's process {why}")


class _Crew:
    """The workers that build something now; once stopped, no other one starts to."""

    def __init__(self) -> None:
        self._busy: list[Worker] = []
        self._lock = Lock()
        self.is_stopped = False

    @contextmanager
    def busy(self, worker: Worker) -> Iterator[None]:
        """Around the time a worker builds."""
        with self._lock:
            self._busy.append(worker)
            if self.is_stopped:
                worker.abandon()
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(worker)

    def stop(self) -> None:
        """Abandons those that build."""
        with self._lock:
            self.is_stopped = True
            for worker in self._busy:
                worker.abandon()


class Pool:
    """Worker processes for one device.

    `one_group`: each builds for one size of work-groups. PoCL reads the size that it specialises
    binaries for once in a process.
    """

    def __init__(self, place: dict[str, str], one_group: bool = True) -> None:
        self._place = place
        self._one_group = one_group
        self._idle: list[Worker] = []
        self._lock = Lock()
        self._timer: Timer | None = None

    def prepare(self, jobs: int) -> None:
        """Starts processes, so that as many wait with their compiler loaded."""
        with self._lock:
            while len(self._idle) < jobs:
                try:
                    worker = Worker(self._place)
                except OSError:  # the build meets it again and says so
                    return
                worker.load_compiler()
                self._idle.append(worker)
        self._close_later()

    def build(
        self,
        sources: Sequence[SourceProgram],
        jobs: int,
        progress: Callable[[str], None] | None,
        seconds: float,
        done: Done | None = None,
        wanted: Wanted = lambda _: True,
    ) -> list[bytes | BuildError]:
        """A binary or an error per source, built by `jobs` processes, each within the seconds.

        What is not `wanted` has none. `done` is called in some thread. When interrupted, the
        processes are ended, whatever they build. Raises `OSError` where no process can be started.
        """
        kinds: list[Kind] = [source.group if self._one_group else () for source in sources]
        tasks = Tasks(kinds, [len(source.source) for source in sources])
        results: dict[int, bytes | BuildError] = {}
        crew = _Crew()

        def work() -> None:
            worker = None
            index = tasks.take(None)
            try:
                while index is not None:
                    if not wanted(index):
                        index = tasks.take(kinds[index])
                        continue
                    worker = self._fitting(worker, kinds[index])
                    start = perf_counter()
                    with crew.busy(worker):
                        results[index] = worker.build(sources[index], kinds[index], seconds)
                    if crew.is_stopped:
                        return
                    took = perf_counter() - start
                    _LOG.debug("kernel '%s': the compiler took %.2f s", sources[index].entry, took)
                    if done is not None:
                        done(index, results[index], took)
                    if progress is not None:
                        progress(sources[index].entry)
                    index = tasks.take(kinds[index])
            finally:
                if worker is not None:
                    self._give_back(worker)

        with executor(jobs, "clinfer-build") as threads:
            pending = started(threads, work, jobs)
            try:
                wait_for(pending)
            except BaseException:
                tasks.stop()
                crew.stop()
                raise
        return [results[index] for index in sorted(results)]

    def close(self) -> None:
        """Ends the processes that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._timer is not None:
                self._timer.cancel()
        for worker in idle:
            worker.close()

    def forget(self) -> None:
        """In a forked child: the processes are the parent's, and so are the locks."""
        self._lock = Lock()
        self._timer = None
        self.close()

    def _fitting(self, worker: Worker | None, kind: Kind) -> Worker:
        """The worker where it may build that kind, else another one in its place."""
        if worker is not None:
            if worker.kind == kind and not worker.is_dead and not worker.is_spent:
                return worker
            self._give_back(worker)
        with self._lock:
            # Those that have built nothing may build anything; they come last.
            for idle in sorted(self._idle, key=lambda w: w.kind is None):
                if idle.kind in (kind, None):
                    self._idle.remove(idle)
                    return idle
            surplus = self._idle.pop(0) if self._idle else None
        if surplus is not None:
            surplus.close()
        return Worker(self._place)

    def _give_back(self, worker: Worker) -> None:
        if worker.is_dead:
            return
        if worker.is_spent or worker.is_abandoned:
            worker.close()
            return
        with self._lock:
            self._idle.append(worker)
        self._close_later()

    def _close_later(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = Timer(SECONDS_IDLE, self.close)
            self._timer.daemon = True
            try:
                self._timer.start()
                return
            except RuntimeError:  # the system gives no more threads
                self._timer = None
        self.close()


_pools: dict[tuple[str, str, str], Pool] = {}


def pool_of(device: Device) -> Pool:
    """The pool for a device and what it compiles for; one per process."""
    key = (device.found.platform, device.found.full_name, device.info.cpu_target)
    if key not in _pools:
        if not _pools:
            atexit.register(_close_all)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget_all)
        place = {"platform": key[0], "device": key[1], "cpu_target": key[2]}
        _pools.setdefault(key, Pool(place, device.quirks.dialect == "pocl"))
    return _pools[key]


def _close_all() -> None:
    for pool in _pools.values():
        pool.close()


def _forget_all() -> None:
    for pool in _pools.values():
        pool.forget()


def started(threads: ThreadPoolExecutor, work: Callable[[], None], jobs: int) -> list[Future[None]]:
    """The work in as many threads as the system gives. Raises `OSError` where that is none."""
    pending: list[Future[None]] = []
    try:
        for _ in range(jobs):
            pending.append(threads.submit(work))  # noqa: PERF401  (those before a failure count)
    except RuntimeError as error:
        if not pending:
            raise OSError(str(error)) from error
    return pending


def wait_for(pending: Sequence[Future[None]]) -> None:
    """Waits until all are done; raises what the first to fail has raised.

    The system may give Ctrl-C to any thread, drivers have some; this one sees it when it wakes up.
    """
    while wait(pending, SECONDS_DEAF, FIRST_EXCEPTION).not_done:
        for future in pending:
            if future.done():
                future.result()
    for future in pending:
        future.result()


def _flags() -> list[str]:
    return ["-B"] if sys.dont_write_bytecode else []


def _environment() -> dict[str, str]:
    """This process's variables, but PoCL's files go to a folder of the worker's own.

    PoCL calls the linker 'ld' by its name: the system's folders are looked into, too.
    """
    ours = {name: value for name, value in os.environ.items() if name != "POCL_CACHE_DIR"}
    path = os.pathsep.join(filter(None, [ours.get("PATH"), os.defpath]))
    libraries = link_libraries.search_path()
    if libraries is not None:
        ours[link_libraries.VARIABLE] = libraries
    return {**ours, "PATH": path, "POCL_MAX_PTHREAD_COUNT": "1"}
