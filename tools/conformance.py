"""Runs ONNX's backend test cases through clinfer and reports what passes.

    python tools/conformance.py --device CPU            # the table
    python tools/conformance.py --device CPU --write    # also docs/operators.md
    python tools/conformance.py --device HOST           # the reader and the host steps alone
    python tools/conformance.py --device CPU --cached   # cached equals uncached, every operator
    python tools/conformance.py --match softmax -v      # some cases, with messages

The cases are those of the installed onnx: node, simple, pytorch-converted and pytorch-operator.
Each runs in a worker process under a time limit; a worker that hangs or dies costs one case.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path

from conformance_cases import KINDS, Cases, Outcome, serve
from conformance_report import document, summary

REPORT = Path(__file__).resolve().parent.parent / "docs" / "operators.md"
BY_HAND = "\n## Positions from data\n"  # where what is not generated begins


class Worker:
    """A worker process and the case it is at."""

    def __init__(self, device: str, cached: bool, serve: Callable[..., None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, device, cached))
        self.process.start()
        theirs.close()
        self.case: str | None = None
        self.since = 0.0

    def give(self, case: str) -> None:
        """Sends the next case."""
        self.pipe.send(case)
        self.case, self.since = case, time.monotonic()

    def is_over(self, limit: float) -> bool:
        """Whether the case takes longer than `limit` seconds."""
        return self.case is not None and time.monotonic() - self.since > limit

    def stop(self) -> int | None:
        """Ends the process; its exit code where it had ended by itself."""
        self.process.join(timeout=0.1)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return code


class Pool:
    """Gives cases to workers and replaces workers that hang or die."""

    def __init__(
        self,
        cases: Sequence[str],
        kinds: dict[str, str],
        device: str,
        limit: float,
        cached: bool = False,
        serve: Callable[..., None] = serve,
    ) -> None:
        self._serve = serve
        self._waiting = list(reversed(cases))
        self._kinds = kinds
        self._device = device
        self._cached = cached
        self._limit = limit
        self.outcomes: list[Outcome] = []

    def run(self, jobs: int) -> list[Outcome]:
        """All outcomes, in the order of kinds and names."""
        total = len(self._waiting)
        workers = [self._worker() for _ in range(min(jobs, total))]
        while workers:
            ready = wait([w.pipe for w in workers], timeout=1.0)
            after = [self._attended(w, w.pipe in ready) for w in workers]
            workers = [w for w in after if w is not None]
            if sys.stderr.isatty():
                print(f"\r{len(self.outcomes)} / {total} ", end="", file=sys.stderr)
        return sorted(self.outcomes, key=lambda o: (KINDS.index(o.kind), o.name))

    def _attended(self, worker: Worker, ready: bool) -> Worker | None:
        """The worker after a look at it: at its next case, replaced, or None when all is done."""
        if not ready:
            return self._replaced(worker, "timeout") if worker.is_over(self._limit) else worker
        try:
            answer = worker.pipe.recv()
        except EOFError:
            return self._replaced(worker, "crashed")
        if answer is not None:
            self.outcomes.append(answer)
        if self._waiting:
            worker.give(self._waiting.pop())
            return worker
        worker.stop()
        return None

    def _replaced(self, worker: Worker, status: str) -> Worker | None:
        case, code = worker.case, worker.stop()
        if case is None:
            raise SystemExit(f"a worker ended before its first case, exit code {code}")
        message = f"exit code {code}" if status == "crashed" else f"over {self._limit:g} s"
        self.outcomes.append(Outcome(case, self._kinds[case], status, message=message))
        return self._worker() if self._waiting else None

    def _worker(self) -> Worker:
        return Worker(self._device, self._cached, self._serve)


def main() -> int:
    """The command line; exit status 1 where fewer than `--least` cases pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="CPU", help="CPU, GPU ..., or HOST: host steps alone")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per case")
    parser.add_argument(
        "--cached", action="store_true", help="compile twice with a cache: bits must be the same"
    )
    parser.add_argument("--write", action="store_true", help=f"write docs/{REPORT.name}")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    parser.add_argument("--least", type=int, default=0, help="how many must pass")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what failed and why")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = Cases().kinds
    started = time.monotonic()
    chosen = [name for name in kinds if args.match in name]
    outcomes = Pool(chosen, kinds, args.device, args.timeout, args.cached).run(args.jobs)
    failed = [o for o in outcomes if o.status != "passed"]
    if args.verbose:
        for outcome in failed:
            print(f"{outcome.name}: {outcome.status}: {outcome.message}")
    print("\n".join(summary(outcomes)))
    statuses = dict(Counter(o.status for o in outcomes))
    print(f"{time.monotonic() - started:.0f} s; {statuses}")
    if args.json:
        args.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    if args.write:
        import onnx

        _, _, written = REPORT.read_text().partition(BY_HAND)
        REPORT.write_text(document(outcomes, args.device, onnx.__version__) + BY_HAND + written)
        print(f"written: {REPORT}")
    return 0 if len(outcomes) - len(failed) >= args.least else 1


if __name__ == "__main__":
    sys.exit(main())
