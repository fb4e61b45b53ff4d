"""How long a model's programs take to build, and to load from binaries, way by way.

    python tools/bench_build.py zoo/resnet50.onnx zoo/bert_base.onnx [--device CPU] [--rounds 3]

Every measurement is a new process with the driver's caches empty; the rounds go through all ways in
turn, and the quickest round counts, so that other work on the machine matters less. Seconds of
processor time are given where one process does it all: they hardly depend on other work.
docs/builds.md explains the ways; --json writes the figures to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinfer.device import compiling, workers
from clinfer.device.discover import Device, open_device
from clinfer.device.opencl import cl
from clinfer.device.programs import build, prepare
from clinfer.device.sources import SourceProgram

# POCL_CACHE_DIR is left to clinfer, so that it is a new folder; these are NVIDIA's and Intel's.
COLD = {"CUDA_CACHE_DISABLE": "1", "NEO_CACHE_PERSISTENT": "0", "PYOPENCL_NO_CACHE": "1"}
# By then the workers have loaded their compiler.
SECONDS_TO_PREPARE = 4.0
WARM_UP = SourceProgram("__kernel void nothing(void) {}", "", "nothing")


def main() -> None:
    """Measures in child processes and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        device = open_device(options.device)
        print(json.dumps(WAYS[options.way](device, read_sources(options.models[0]), options.jobs)))
        return
    document = {}
    with tempfile.TemporaryDirectory(prefix="clinfer-build-") as folder:
        for model in options.models:
            sources = Path(folder) / f"{model.stem}.json"
            write_sources(model, options.device, sources)
            document[model.stem] = measure(sources, options)
            show(model.stem, sources, document[model.stem])
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def measure(sources: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The quickest of the rounds for every way that this device has."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, str(sources), "--way", way]
            command += ["--device", options.device, "--jobs", str(options.jobs)]
            keep = {k: v for k, v in os.environ.items() if k != "POCL_CACHE_DIR"}
            done = subprocess.run(command, env={**keep, **COLD}, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr}")
            found = json.loads(done.stdout.splitlines()[-1])
            for name, value in found.items():
                known = best.setdefault(way, {})
                known[name] = min(value, known.get(name, value))
    return best


def show(model: str, sources: Path, found: dict[str, dict[str, float]]) -> None:
    """Prints a table."""
    print(f"\n{model}: {len(read_sources(sources))} programs")
    print(f"{'way':12} {'wall, s':>8} {'CPU, s':>8}")
    for way, values in found.items():
        if values:
            processor = f"{values['cpu']:8.2f}" if "cpu" in values else " " * 8
            print(f"{way:12} {values['wall']:8.3f} {processor}")


def write_sources(model: Path, device: str, file: Path) -> None:
    """The programs of a model for a device, as a file: planning is not measured."""
    from clinfer import Core
    from clinfer.plugins.compiler import plan_model

    plan = plan_model(Core().read_model(model), open_device(device))
    rows = [[p.source, p.options, p.entry, list(p.local_size)] for p in plan.programs]
    file.write_text(json.dumps(rows))


def read_sources(file: Path) -> list[SourceProgram]:
    """The programs that `write_sources` has written."""
    rows = json.loads(file.read_text())
    return [SourceProgram(text, opts, entry, tuple(size)) for text, opts, entry, size in rows]


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of the block, by the clock and of the processor (this process's threads)."""
    result: dict[str, float] = {}
    wall, used = time.perf_counter(), _processor_time()
    yield result
    result["wall"] = time.perf_counter() - wall
    result["cpu"] = _processor_time() - used


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def front(device: Device, sources: list[SourceProgram], _jobs: int) -> dict[str, float]:
    """From text to the driver's IR, with the driver's whole header."""
    quirks = device.quirks._replace(short_header=False)
    compiling.compile_source(device.context, WARM_UP, quirks)
    with timed() as result:
        for source in sources:
            compiling.compile_source(device.context, source, quirks)
    return result


def front_short(device: Device, sources: list[SourceProgram], _jobs: int) -> dict[str, float]:
    """From text to the driver's IR, with declarations by need."""
    if not device.quirks.short_header:
        return {}
    compiling.compile_source(device.context, WARM_UP, device.quirks)
    with timed() as result:
        for source in sources:
            compiling.compile_source(device.context, source, device.quirks)
    return result


def driver(device: Device, sources: list[SourceProgram], _jobs: int) -> dict[str, float]:
    """One after another with the binaries, as the driver does it by itself, from its first one."""
    quirks = device.quirks._replace(short_header=False, binary_layout=0)
    return _one_by_one(
        device, sources, lambda s: compiling.compile_to_binary(device.context, s, quirks)
    )


def ours(device: Device, sources: list[SourceProgram], _jobs: int) -> dict[str, float]:
    """One after another with the binaries, in this process, as a worker does it."""
    return _one_by_one(
        device, sources, lambda s: compiling.compile_to_binary(device.context, s, device.quirks)
    )


def _one_by_one(
    _device: Device, sources: list[SourceProgram], make: Callable[[SourceProgram], bytes]
) -> dict[str, float]:
    with timed() as result:
        for source in sources:
            make(source)
    return result


def threads(device: Device, sources: list[SourceProgram], jobs: int) -> dict[str, float]:
    """In threads of one process, without binaries."""
    device.quirks = device.quirks._replace(builds="threads")
    with timed() as result:
        build(device, sources, jobs)
    return result


def workers_one(device: Device, sources: list[SourceProgram], _jobs: int) -> dict[str, float]:
    """`build` with one worker process, its start included."""
    return _wall(lambda: build(device, sources, 1))


def workers_all(device: Device, sources: list[SourceProgram], jobs: int) -> dict[str, float]:
    """`build` with worker processes, their start included."""
    return _wall(lambda: build(device, sources, jobs))


def prepared(device: Device, sources: list[SourceProgram], jobs: int) -> dict[str, float]:
    """`build` with worker processes that have started while something else was done."""
    prepare(device, jobs)
    time.sleep(SECONDS_TO_PREPARE)
    return _wall(lambda: build(device, sources, jobs))


def loaded(device: Device, sources: list[SourceProgram], jobs: int) -> dict[str, float]:
    """Loading the binaries, as at a warm start."""
    binaries = [program.binary() for program in build(device, sources, jobs)]
    _end_workers()
    code = _LOADING.format(path=sys.path, device=device.info.name)
    rows = [[s.entry, list(s.local_size), b.hex()] for s, b in zip(sources, binaries, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(rows), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


_LOADING = """
import json, sys, time
sys.path[:] = {path!r}
from clinfer.device.discover import open_device
from clinfer.device.programs import SourceProgram, load
rows = json.load(sys.stdin)
ready = [(SourceProgram("", "", e, tuple(s)), bytes.fromhex(b)) for e, s, b in rows]
device = open_device({device!r})
start = time.perf_counter()
for source, binary in ready:
    load(device, source, binary)
print(json.dumps(dict(wall=time.perf_counter() - start)))
"""


def on_disk(device: Device, sources: list[SourceProgram], jobs: int) -> dict[str, float]:
    """The same where PoCL's folder is on disk (the folder for temporary files)."""
    if device.quirks.dialect != "pocl":
        return {}
    with tempfile.TemporaryDirectory(prefix="clinfer-disk-") as folder:
        os.environ["POCL_CACHE_DIR"] = folder
        return loaded(device, sources, jobs)


def _wall(action: Callable[[], Any]) -> dict[str, float]:
    with timed() as result:
        action()
    del result["cpu"]  # the workers', not this process's
    return result


def _end_workers() -> None:
    workers._close_all()


WAYS: dict[str, Callable[[Device, list[SourceProgram], int], dict[str, float]]] = {
    "front": front,
    "front-short": front_short,
    "driver": driver,
    "ours": ours,
    "threads": threads,
    "workers-1": workers_one,
    "workers": workers_all,
    "prepared": prepared,
    "load": loaded,
    "load-disk": on_disk,
}

if __name__ == "__main__":
    cl()
    main()
