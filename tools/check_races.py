"""GPU schedules through Oclgrind: races, diverging barriers, reads and writes outside buffers.

    python tools/check_races.py                       every schedule of ONNX's operator cases; long
    python tools/check_races.py --sample 40           that many cases, spread over operators
    python tools/check_races.py --case test_matmul_2d test_conv_with_strides_padding

PoCL runs the work-items of a group one after the other between barriers, so a missing barrier
shows in no result there; Oclgrind interprets every item and watches every access. Each case is
lowered for the GPU plugin, and run once for every candidate that a family offers for its problems
(what tuning may choose), but not where all its kernels have been run before. Results are compared
with the case's. A case with more than --items work-items is left out, and said so.

Oclgrind: Debian's package of that name, or unpacked (GPU_ROOT; tools/unpack_compilers.py). Exit
code 1 where something is found. docs/kernels-checked.md tells what is covered.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

_LIBRARY = "usr/lib/oclgrind/liboclgrind-rt-icd.so"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
SECONDS = 600
MOST_ITEMS = 200_000
# Operators whose kernels share local memory or wait for each other first.
_FIRST = ("MatMul", "Gemm", "Conv", "Attention", "Softmax", "LayerNormalization", "ReduceSum")
_SKIPPED = "no kernel that has not been run"


def library() -> Path | None:
    """Oclgrind as a driver; None where it is not there."""
    roots = [Path(root) for root in (os.environ.get("GPU_ROOT"), "/") if root]
    return next((root / _LIBRARY for root in roots if (root / _LIBRARY).exists()), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", nargs="+", metavar="NAME", help="these cases only")
    parser.add_argument("--sample", type=int, metavar="N", help="so many cases")
    parser.add_argument("--items", type=int, default=MOST_ITEMS, help="the most work-items")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of a case")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.items)
        return 0
    oclgrind = library()
    if oclgrind is None:
        print("skipped: oclgrind not found")
        return 0
    names = options.case or cases(options.sample)
    with TemporaryDirectory(prefix="clinfer-races-") as folder:
        return check(names, surroundings(oclgrind, Path(folder)), options.items, options.seconds)


def cases(sample: int | None) -> list[str]:
    """Names of ONNX's operator cases: a few of each operator first, all without `sample`."""
    from conformance_cases import Cases

    every = Cases()
    by_operator: dict[tuple[str, ...], list[str]] = {}
    for name, kind in every.kinds.items():
        if kind == "node":
            by_operator.setdefault(every.operators(name), []).append(name)
    order = sorted(by_operator, key=lambda ops: (ops[:1] not in [(f,) for f in _FIRST], ops))
    most = max(map(len, by_operator.values()))
    rows = [by_operator[ops][n] for n in range(most) for ops in order if n < len(by_operator[ops])]
    return rows[:sample]


def surroundings(oclgrind: Path, folder: Path) -> dict[str, str]:
    """Variables of a process whose only device is Oclgrind's, presented as a GPU."""
    (folder / "oclgrind.icd").write_text(f"{oclgrind}\n")
    root = oclgrind.parents[3]
    paths = [str(ROOT / part) for part in ("tools", "runtime", "kernels")]
    libraries = [str(root / _LIBRARIES), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "OCL_ICD_VENDORS": str(folder),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "CLINFER_GPU_PLATFORM": "Oclgrind",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNIFORM_WRITES": "1",
        "OCLGRIND_LOG": str(folder / "log"),
        "PYTHONPATH": os.pathsep.join(paths),
    }


def check(names: Sequence[str], environment: Mapping[str, str], items: int, seconds: float) -> int:
    """Runs the cases; a process that ends or hangs costs its case only."""
    child = None
    kernels: set[str] = set()
    found = ran = 0
    left_out: list[str] = []
    for name in names:
        child = child or _start(environment, items)
        answer = _ask(child, name, seconds)
        if answer is None:
            child.kill()
            child.wait()
            child = None
            answer = {"faults": [f"no answer in {seconds:.0f} s, or the process has ended"]}
        kernels.update(answer.get("kernels", ()))
        ran += bool(answer.get("kernels"))
        if answer.get("skipped") and answer["skipped"] != _SKIPPED:
            left_out.append(f"{name}: {answer['skipped']}")
        for fault in answer.get("faults", ()):
            found += 1
            print(f"FAULT {name}: {fault}", flush=True)
    if child is not None:
        child.kill()
        child.wait()
    for line in left_out:
        print(f"left out: {line}")
    print(f"{ran} of {len(names)} cases run, {len(kernels)} kernels, {found} faults")
    return 1 if found else 0


def _start(environment: Mapping[str, str], items: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", "--items", str(items)],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ask(child: subprocess.Popen[str], name: str, seconds: float) -> dict[str, Any] | None:
    assert child.stdin is not None
    assert child.stdout is not None
    timer = Timer(seconds, child.kill)
    timer.start()
    try:
        child.stdin.write(name + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        return None
    finally:
        timer.cancel()
    if not line:
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


# -- in the process that sees Oclgrind -------------------------------------------------------------


def serve(items: int) -> None:
    """Answers each name on standard input with a line of JSON."""
    runner = Runner(items)
    for line in sys.stdin:
        print(json.dumps(runner.run(line.strip())), flush=True)


class Runner:
    """Runs cases with all candidates, and reads what Oclgrind writes meanwhile."""

    def __init__(self, items: int) -> None:
        from clinfer.device.discover import open_device
        from conformance_cases import Cases

        self._cases = Cases()
        self._device = open_device("GPU")
        self._items = items
        self._log = Path(os.environ["OCLGRIND_LOG"])
        self._seen: set[str] = set()

    def run(self, name: str) -> dict[str, Any]:
        """kernels, faults, or why it was skipped."""
        from clinfer.errors import ClinferError

        answer: dict[str, Any] = {"kernels": [], "faults": []}
        try:
            data = list(self._cases.data(name))
            for candidate, plan in self._plans(name):
                new = {p.digest: p.entry for p in plan.programs if p.digest not in self._seen}
                if not new:
                    continue
                count = _work_items(plan, data[0][0])
                if count > self._items:
                    answer["skipped"] = f"{count} work-items"
                    continue
                self._seen.update(new)
                answer["kernels"] += [f"{entry}-{digest[:8]}" for digest, entry in new.items()]
                with_candidate = f"candidate {candidate}, {', '.join(sorted(new.values()))}"
                answer["faults"] += [
                    f"{with_candidate}: {line}" for line in self._faults(name, plan, data)
                ]
        except (ClinferError, NotImplementedError, ImportError) as error:
            answer["skipped"] = " ".join(str(error).split())[:200]
        if not answer["kernels"]:
            answer.setdefault("skipped", _SKIPPED)
        return answer

    def _plans(self, name: str) -> Iterator[tuple[int, Any]]:
        """(candidate, plan) until no problem of the case has another."""
        from clinfer.graph.reader import read
        from clinfer.lowering.choose import KernelChoice
        from clinfer.lowering.lower import lower
        from clinfer.passes.pipeline import optimise

        first = KernelChoice()
        index, most = 0, 1
        while index < most:
            graph = read(self._cases.model(name)).graph()
            optimise(graph, cls="gpu")
            known = {d: index for d, p in first.problems.items() if index < len(p.tiles)}
            choice = first if index == 0 else KernelChoice(known)
            yield index, lower(graph, self._device.target, choice).plan
            most = max((len(problem.tiles) for problem in first.problems.values()), default=1)
            index += 1

    def _faults(self, name: str, plan: Any, data: Sequence[Any]) -> list[str]:
        from clinfer.device.executor import LoadedPlan
        from clinfer.device.programs import SourceProgram, build

        start = self._log.stat().st_size if self._log.exists() else 0
        sources = [SourceProgram(p.source, p.options, p.entry, p.local_size) for p in plan.programs]
        session = LoadedPlan(self._device, plan, build(self._device, sources, 1)).session()
        inputs, expected = data[0]
        faults = []
        try:
            self._cases.compare(name, expected, session.run(inputs))
        except AssertionError as error:
            faults.append(f"wrong results: {' '.join(str(error).split())[:200]}")
        text = self._log.read_bytes()[start:].decode(errors="replace") if self._log.exists() else ""
        return [*faults, *messages(text)]


def messages(log: str) -> list[str]:
    """What Oclgrind has found, each once: the first line of each block with where it is."""
    found: dict[str, None] = {}
    for block in log.split("\n\n"):
        lines = [line.strip() for line in block.strip().splitlines()]
        if lines and lines[0]:
            where = next((line for line in lines[1:] if line.startswith("At line")), "")
            kernel = next((line for line in lines[1:] if line.startswith("Kernel:")), "")
            found.setdefault(" ".join(filter(None, (lines[0], kernel, where))))
    return list(found)


def _work_items(plan: Any, inputs: Sequence[Any]) -> int:
    """Of all launches whose sizes are known from the inputs."""
    import numpy as np

    from clinfer.lowering.binding import bind_inputs, bind_launch

    sizes = bind_inputs(plan, [np.shape(value) for value in inputs])

    def of(step: Any) -> int:
        try:
            return prod(bind_launch(step, sizes).global_size)
        except KeyError:
            return 0

    return sum(map(of, plan.launches))


if __name__ == "__main__":
    sys.exit(main())
