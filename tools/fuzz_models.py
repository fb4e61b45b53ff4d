"""Fuzzes whole runs: models and inputs changed at random, read, compiled and run on the CPU.

    python tools/fuzz.py models --cases 20000 --jobs 2
    python tools/fuzz.py models --replay fuzz-failures/models-0-1234 ...

Seeds are the models of ONNX's backend tests that are small. Case n of a seed is the same wherever
it runs (`fuzz_mutations`). Cases run in worker processes, many to a process; a worker that ends or
does not answer in time is a fault of the case at hand, and another one takes its place. Kernels are
built once and kept in --work, so that a second run is faster.

A case fails if anything but a clinfer error comes, an `InternalError`, a message that is no short
text, a crash, or no answer in time. It is kept in --output as model.onnx, inputs and what was said.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

MOST_MODEL_BYTES = 1 << 16
MOST_INPUT_BYTES = 1 << 20
LONGEST_MESSAGE = 2100
MEMORY = 6 << 30
CASES_PER_WORKER = 1000
Seed = tuple[str, bytes, dict[str, Any]]


def seeds(work: Path) -> list[Seed]:
    """Small models with inputs that fit them: ONNX's backend cases, kept in a file once made."""
    import onnx

    file = work / f"seeds-{onnx.__version__}.pickle"
    if file.exists():
        found: list[Seed] = pickle.loads(file.read_bytes())
        return found
    from conformance_cases import Cases

    cases = Cases()
    found = []
    for name in sorted(cases.kinds):
        model = cases.model(name)
        content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
        if len(content) > MOST_MODEL_BYTES:
            continue
        proto = onnx.ModelProto.FromString(content)
        constants = {t.name for t in proto.graph.initializer}
        names = [i.name for i in proto.graph.input if i.name not in constants]
        inputs, _ = next(iter(cases.data(name)), ([], []))
        if sum(getattr(x, "nbytes", 0) for x in inputs) <= MOST_INPUT_BYTES:
            found.append((name, content, dict(zip(names, inputs, strict=False))))
    work.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(found))
    return found


@dataclass
class Case:
    """One case: the changed model, what was changed, and the inputs of its runs."""

    name: str
    model: bytes
    changes: list[str]
    runs: list[dict[str, Any]]


def case_of(number: int, seed: int, known: list[Seed]) -> Case:
    """Case `number` of that seed."""
    import onnx

    from fuzz_mutations import mutated, odd_inputs

    rng = random.Random(f"{seed}/{number}")
    name, content, inputs = rng.choice(known)
    model = onnx.ModelProto.FromString(content)
    others = [onnx.ModelProto.FromString(rng.choice(known)[1]) for _ in range(2)]
    changed, changes = mutated(rng, model, others)
    data = changed.SerializeToString()
    if rng.random() < 0.03:
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        data, changes = bytes(damaged), [*changes, "bytes"]
    return Case(name, data, changes, [inputs, odd_inputs(rng, inputs), odd_inputs(rng, inputs)])


# -- a worker --------------------------------------------------------------------------------------


def attempt(case: Case) -> tuple[str, str]:
    """('ok', ''), ('refused', kind of error), or ('FAULT', what happened)."""
    import clinfer

    core = clinfer.Core()
    ran = 0
    try:
        model = core.compile_model(case.model, "CPU")
        ports = model.inputs
    except BaseException as error:
        return _verdict(error)
    said = ""
    for inputs in case.runs:
        # Ports that are new or have another name get some value of the seed.
        values = list(inputs.values())
        given = dict(inputs)
        if inputs is case.runs[0]:
            given = {p.name: inputs.get(p.name, values[0] if values else 0) for p in ports}
        try:
            model(given)
            ran += 1
        except BaseException as error:
            status, said = _verdict(error)
            if status == "FAULT":
                return status, said
    return ("ok", "") if ran else ("refused", said)


def _verdict(error: BaseException) -> tuple[str, str]:
    from clinfer.errors import ClinferError, InternalError

    kind = type(error).__name__
    text = str(error)
    if isinstance(error, KeyboardInterrupt):
        raise error
    if not isinstance(error, ClinferError) or isinstance(error, InternalError):
        return "FAULT", f"{kind} {_place(error)}\n" + "".join(traceback.format_exception(error))
    if not text or len(text) > LONGEST_MESSAGE or not text.replace("\n", "").isprintable():
        return "FAULT", f"{kind} with a message of {len(text)} characters\n{text[:3000]}"
    return "refused", kind


def _place(error: BaseException) -> str:
    """Where it was raised first: what faults of one kind have in common."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "clinfer" in f.filename] or list(frames)
    last = ours[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.name}"


def keep_programs(folder: Path) -> None:
    """Programs built once are found again by all models, also on a CPU."""
    from clinfer.device import programs
    from clinfer.errors import BuildError

    build = programs.build

    def kept(device: Any, sources: Any, jobs: Any = None, progress: Any = None) -> list[Any]:
        found = [_load(source) for source in sources]
        missing = [source for source, program in zip(sources, found, strict=True) if not program]
        made = iter(build(device, missing, jobs, progress))
        result = []
        for source, program in zip(sources, found, strict=True):
            if program is None:
                program = next(made)
                path = _path(source)
                partial = path.with_suffix(f".{os.getpid()}")
                partial.write_bytes(program.binary())
                partial.replace(path)
            result.append(program)
        return result

    def _path(source: Any) -> Path:
        return folder / hashlib.sha256(repr(source).encode()).hexdigest()

    def _load(source: Any) -> Any:
        import clinfer

        path = _path(source)
        if not path.exists():
            return None
        try:
            return programs.load(_device(), source, path.read_bytes(), lazily=True)
        except (BuildError, clinfer.ClinferError):
            return None

    opened: list[Any] = []

    def _device() -> Any:
        from clinfer.device.discover import open_device

        if not opened:
            opened.append(open_device("CPU"))
        return opened[0]

    folder.mkdir(parents=True, exist_ok=True)
    programs.build = kept


def work(jobs: Connection, work_folder: Path, seed: int) -> None:
    """A worker process: answers numbers of cases until none comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _limit_memory()
    keep_programs(work_folder / "programs")
    known = seeds(work_folder)
    while True:
        number = jobs.recv()
        if number is None:
            return
        case = case_of(number, seed, known)
        status, said = attempt(case)
        jobs.send((number, status, said))


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# -- the driver ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of all cases so far."""

    options: Any
    known: list[Seed]
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, number: int, status: str, said: str) -> None:
        """Counts a case; keeps the first few of each kind of fault."""
        self.counts[status] += 1
        if status == "refused":
            self.refused[said] += 1
        if status != "FAULT":
            return
        kind = said.splitlines()[0]
        self.faults[kind] += 1
        if self.faults[kind] <= 3:
            folder = keep(number, self.options, self.known, said)
            print(f"case {number}: {kind} ({folder})", flush=True)

    def report(self, seconds: float) -> None:
        """How many of what."""
        total = sum(self.counts.values())
        print(f"{total} cases in {seconds:.0f} s: {dict(self.counts)}", flush=True)
        print(f"refused by: {dict(self.refused.most_common())}")
        for kind, count in self.faults.most_common():
            print(f"  {count:5} {kind}")


class Runner:
    """One worker process and the case it is at."""

    def __init__(self, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, options.work, options.seed)
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.number = -1
        self.started = 0.0
        self.left = CASES_PER_WORKER

    def start(self, number: int) -> None:
        """Gives it a case."""
        self.number = number
        self.started = time.monotonic()
        self.left -= 1
        self.pipe.send(number)

    def answer(self) -> tuple[str, str] | None:
        """What came of its case; None where the process has ended."""
        try:
            _, status, said = self.pipe.recv()
        except (EOFError, ConnectionError):
            return None
        return status, said

    def end(self) -> int | None:
        """Ends the process; its exit code."""
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self.pipe.close()
        return self._process.exitcode


def fuzz(options: argparse.Namespace) -> bool:
    """Runs cases until the number or the time is reached; whether none failed."""
    os.environ["CLINFER_COMPILE_JOBS"] = "1"
    for name in ("CLINFER_CACHE_DIR", "CLINFER_CACHE_PATH", "CLINFER_CACHE_STORE"):
        os.environ.pop(name, None)
    tally = Tally(options, seeds(options.work))
    numbers = iter(range(options.first, options.first + options.cases))
    start = time.monotonic()
    runners = [Runner(options) for _ in range(options.jobs)]
    idle = list(runners)
    busy: list[Runner] = []
    shown = start
    over = False
    while busy or not over:
        while idle and not over:
            number = next(numbers, None)
            if number is None or time.monotonic() - start > options.seconds:
                over = True
                break
            runner = idle.pop()
            if not runner.left:
                runner.end()
                runner = Runner(options)
            runner.start(number)
            busy.append(runner)
        ready = wait([runner.pipe for runner in busy], timeout=1.0) if busy else []
        for runner in list(busy):
            expired = time.monotonic() - runner.started > options.limit
            if runner.pipe not in ready and not expired:
                continue
            found = runner.answer() if runner.pipe in ready else None
            busy.remove(runner)
            if found is not None:
                tally.note(runner.number, *found)
                idle.append(runner)
                continue
            code = runner.end()
            how = f"no answer in {options.limit:g} s" if expired else f"CRASH, exit code {code}"
            tally.note(runner.number, "FAULT", how)
            idle.append(Runner(options))
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print(f"{shown - start:.0f} s: {dict(tally.counts)}", flush=True)
    for runner in idle:
        runner.end()
    tally.report(time.monotonic() - start)
    return not tally.faults


def keep(number: int, options: argparse.Namespace, known: list[Seed], said: str) -> Path:
    """Writes a case down: its folder."""
    case = case_of(number, options.seed, known)
    folder = Path(options.output) / f"models-{options.seed}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(case.model)
    (folder / "case.pickle").write_bytes(pickle.dumps(case))
    (folder / "said.txt").write_text(f"{case.name}: {', '.join(case.changes)}\n{said}\n")
    return folder


def replay(folders: list[Path]) -> bool:
    """Runs kept cases in this process; whether none failed."""
    fine = True
    for folder in folders:
        status, said = attempt(pickle.loads((folder / "case.pickle").read_bytes()))
        fine &= status != "FAULT"
        print(f"{folder}: {status} {said}")
    return fine


if __name__ == "__main__":
    sys.exit("run tools/fuzz.py models")
