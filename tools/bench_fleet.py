"""What a second worker brings when a fleet fills one store: `clinfer warm --fleet`, cold.

    python tools/bench_fleet.py [MODEL.onnx ...] [--device CPU] [--workers 2] [--rounds 2] [--kill]

Each worker stands for a machine of one core: a process on a core of its own, one program at a time,
with new folders for what drivers keep. Every arm starts from an empty store (a folder) and ends
when its workers do; then `clinfer verify` proves the store complete. Arms alternate. Figures:
seconds until the last worker ends, programs that each has built, and the ratio to one worker. With
--kill, one arm more: a worker is killed (SIGKILL) after a quarter of the time that one worker took,
and nobody starts it again.

GPU is PoCL in the place of one: programs and plans are entries. CPU: whole models are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

MODELS = [
    Path("tests/models") / f"{name}.onnx"
    for name in ("mobilenetv2", "resnet50", "efficientnet_b0", "segformer_b0", "yolos_tiny")
]
LEASE = 5.0


class Arm(NamedTuple):
    """One way to fill the store."""

    title: str
    workers: int
    kills: bool = False


class Filled(NamedTuple):
    """What became of an arm: seconds in all, and programs built, by worker."""

    seconds: float
    built: list[int]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=MODELS)
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    arms = [Arm("one worker", 1), Arm(f"{options.workers} workers", options.workers)]
    if options.kill:
        arms.append(Arm(f"{options.workers} workers, one killed", options.workers, True))
    print(f"{len(options.models)} models, {options.device}; load {os.getloadavg()[0]:.1f} before")
    found: dict[str, list[float]] = {arm.title: [] for arm in arms}
    for number in range(options.rounds):
        for arm in arms:
            with tempfile.TemporaryDirectory() as folder:
                one = found[arms[0].title]
                filled = _fill(arm, options, Path(folder), one[-1] / 4 if one else 0.0)
                found[arm.title].append(filled.seconds)
                _tell(number, arm, filled)
    base = statistics.median(found[arms[0].title])
    for title, seconds in found.items():
        median = statistics.median(seconds)
        print(f"{title:<28}{median:>8.1f} s{base / median:>8.2f} times as fast as one")
    print(f"load {os.getloadavg()[0]:.1f} after")


def _fill(arm: Arm, options: Any, place: Path, until_killed: float) -> Filled:
    store = place / "store"
    shared = [*map(str, options.models), "--device", options.device, "--store", f"file://{store}"]
    command = [*shared, "--fleet", "--jobs", "1", "--lease", str(LEASE), "--json"]
    start = time.perf_counter()
    running = [_start(place / str(index), index, command) for index in range(arm.workers)]
    if arm.kills:
        time.sleep(until_killed)
        running.pop(0).kill()
    outputs = [process.communicate()[0] for process in running]
    seconds = time.perf_counter() - start
    assert not any(process.returncode for process in running), outputs
    _run([*_clinfer("verify"), *shared], place / "verify")
    documents = [json.loads(output) for output in outputs]
    return Filled(seconds, [sum(row["built"] for row in d["models"]) for d in documents])


def _start(place: Path, core: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """A worker with a core to itself and no caches of drivers."""
    cores = sorted(os.sched_getaffinity(0))
    mine = {cores[core % len(cores)]}
    return subprocess.Popen(
        [*_clinfer("warm"), *arguments],
        env=_environment(place),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, mine),
    )


def _run(command: Sequence[str], place: Path) -> None:
    subprocess.run(command, env=_environment(place), stdout=subprocess.DEVNULL, check=True)


def _clinfer(name: str) -> list[str]:
    return [sys.executable, "-m", "clinfer", name]


def _environment(place: Path) -> dict[str, str]:
    drivers = place / "drivers"
    drivers.mkdir(parents=True)
    own = {k: v for k, v in os.environ.items() if not k.startswith("CLINFER_CACHE")}
    return {
        **own,
        "POCL_CACHE_DIR": str(drivers),
        "PYOPENCL_NO_CACHE": "1",
        "CUDA_CACHE_DISABLE": "1",
        "NEO_CACHE_PERSISTENT": "0",
        "CLINFER_GPU_PLATFORM": "Portable Computing Language",
    }


def _tell(number: int, arm: Arm, filled: Filled) -> None:
    built = " + ".join(map(str, filled.built))
    print(
        f"round {number + 1}: {arm.title:<26}{filled.seconds:>7.1f} s, complete; "
        f"built {built} = {sum(filled.built)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
