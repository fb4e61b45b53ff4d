"""What a GPU that clinfer has never run on tells in ten minutes.

    python tools/gpu_first_run.py OUT [MODEL.onnx ...]
    CLINFER_GPU_PLATFORM=Portable python tools/gpu_first_run.py OUT --small    a trial on PoCL

Stages in order of worth, each a process of its own with a limit: a driver that hangs or crashes
costs the rows of its stage that are still to come. OUT gets NN-STAGE.jsonl, a line as soon as a row
is known; results.json with all of them; report.txt for people. Without models: those of
tests/models. A model without weights (initialisers with no content) gets random ones.
docs/gpu-first-run.md says which question each stage answers. Exit code 1 where a stage failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

MINUTES = 10
SCRIPT = __file__
_LEAST = 15  # seconds that a stage must have left to be begun


class Stage(NamedTuple):
    """A function of a module of tools/; `seconds` is its limit."""

    name: str
    module: str
    seconds: int


STAGES = (
    Stage("facts", "gpu_stages", 40),
    Stage("language", "gpu_stages", 60),
    Stage("units", "gpu_stages", 40),
    Stage("binaries", "gpu_stages", 40),
    Stage("launches", "gpu_stages", 40),
    Stage("copies", "gpu_stages", 40),
    Stage("peaks", "gpu_stages", 40),
    Stage("products", "gpu_models", 90),
    Stage("inferences", "gpu_models", 180),
    Stage("loads", "gpu_models", 120),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("models", type=Path, nargs="*", help="(default: tests/models)")
    parser.add_argument("--small", action="store_true", help="sizes of a trial")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    names = [stage.name for stage in STAGES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STAGE")
    parser.add_argument("--in-this-process", choices=names, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(arguments)
    models = options.models or sorted((ROOT / "tests" / "models").glob("*.onnx"))
    if options.in_this_process:
        run(options.in_this_process, options.out, models, options.small)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    # NVIDIA's cache, for builds that are not clinfer's: it shows what it keeps, and starts empty.
    environment = {"CUDA_CACHE_PATH": str(options.out.resolve() / "driver-cache"), **os.environ}
    end = time.monotonic() + 60 * options.minutes
    states = {}
    for stage in STAGES:
        if stage.name in options.only:
            flags = ["--small"] if options.small else []
            command = [sys.executable, SCRIPT, *map(str, [options.out, *models]), *flags]
            command += ["--in-this-process", stage.name]
            own = environment if stage.module == "gpu_stages" else os.environ
            states[stage.name] = _run(stage, command, end - time.monotonic(), own)
            print(f"{stage.name}: {states[stage.name]}", flush=True)
    results = {name: rows_of(options.out, name) for name in states}
    document = {"states": states, "results": results}
    (options.out / "results.json").write_text(json.dumps(document, indent=1))
    (options.out / "report.txt").write_text(report(states, results))
    print(f"written: {options.out / 'report.txt'}, {options.out / 'results.json'}")
    return 0 if set(states.values()) == {"done"} else 1


def _run(stage: Stage, command: Sequence[str], left: float, environment: Mapping[str, str]) -> str:
    """What became of a stage, with so many seconds left for all."""
    if left < _LEAST:
        return "no time left"
    limit = min(stage.seconds, left)
    try:
        done = subprocess.run(
            command, env=dict(environment), timeout=limit, check=False, stdout=sys.stderr
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    return "done" if done.returncode == 0 else f"ended with status {done.returncode}"


def run(name: str, out: Path, models: list[Path], small: bool) -> None:
    """A stage, in this process: its rows go to its file one by one."""
    from importlib import import_module

    from gpu_probe import Probe

    stage = next(stage for stage in STAGES if stage.name == name)
    with _file(out, name).open("w", buffering=1) as file:
        try:
            for row in getattr(import_module(stage.module), name)(Probe(small), out, models):
                file.write(json.dumps(row) + "\n")
        except Exception:
            file.write(json.dumps({"what": "failed", "refused": traceback.format_exc()}) + "\n")
            raise


def rows_of(out: Path, name: str) -> list[dict[str, Any]]:
    """What a stage has written so far."""
    file = _file(out, name)
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def report(states: Mapping[str, str], results: Mapping[str, list[dict[str, Any]]]) -> str:
    """The rows as text."""
    lines = []
    for name, state in states.items():
        lines += [f"== {name}: {state}", *map(_line, results[name]), ""]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    what, *others = row.items()
    return f"{what[1]}: " + ", ".join(f"{name} {_text(value)}" for name, value in others)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\0", "")


def _file(out: Path, name: str) -> Path:
    number = next(number for number, stage in enumerate(STAGES) if stage.name == name)
    return out / f"{number:02}-{name}.jsonl"


if __name__ == "__main__":
    sys.exit(main())
