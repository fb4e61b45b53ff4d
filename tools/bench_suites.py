"""Run time on the PoCL of other Debian suites next to that of the wheel, rounds interleaved.

    sudo python tools/bench_suites.py FOLDER zoo/resnet50.onnx --suites trixie sid

FOLDER holds suites as `tools/debian_suite.py` unpacks them, whose options --bind and --wheels are
taken here too. A process each keeps the model; in every round each runs for the given time while
the others wait; the first round is dropped. Prints per model and suite the ratio of medians and of
the fastest runs to the wheel's. With `--threads 1` times are those of the thread's processor, so
that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench_startup import ROOT

WHEEL = "wheel"
RUNTIME = "clinfer-pocl"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--suites", nargs="+", default=["trixie", "sid"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bind", action="append", default=[], metavar="DIR")
    parser.add_argument("--wheels", metavar="DIR")
    options = parser.parse_args()
    for model in options.models:
        times = measure(options, model.resolve())
        base = times[WHEEL]
        for suite, found in times.items():
            middle, best = statistics.median(found), min(found)
            print(
                f"{model.stem:16} {suite:8} {middle * 1e3:8.2f} ms, fastest {best * 1e3:8.2f}: "
                f"{middle / statistics.median(base):.3f}, fastest {best / min(base):.3f} of the "
                f"wheel's ({len(found)} runs)",
                flush=True,
            )


def measure(options: argparse.Namespace, model: Path) -> dict[str, list[float]]:
    """Seconds of each inference, by suite. Raises `RuntimeError` where one cannot run the model."""
    processes = {suite: start(options, model, suite) for suite in (WHEEL, *options.suites)}
    times: dict[str, list[float]] = {suite: [] for suite in processes}
    for turn in range(options.rounds + 1):
        for suite, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{options.seconds}\n")
            process.stdin.flush()
            batch = json.loads(process.stdout.readline())
            if turn:
                times[suite] += batch
    for process in processes.values():
        process.communicate()
    return times


def start(options: argparse.Namespace, model: Path, suite: str) -> subprocess.Popen[str]:
    """A process with the model loaded."""
    child = [str(ROOT / "tools/bench_child.py"), RUNTIME, str(model), "--serve"]
    child += ["--threads", str(options.threads)]
    child += ["--processor"] if options.threads == 1 else []
    command = [sys.executable, *child]
    if suite != WHEEL:
        places = [
            word for place in (*options.bind, model.parent) for word in ("--bind", str(place))
        ]
        wheels = [] if options.wheels is None else ["--wheels", options.wheels]
        tool = [sys.executable, str(ROOT / "tools/debian_suite.py")]
        command = [*tool, str(options.folder), suite, *places, *wheels, "--", "python", *child]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        _, log = process.communicate()
        raise RuntimeError(f"{suite} cannot run {model}: {log.strip().splitlines()[-1:]}")
    return process


if __name__ == "__main__":
    main()
