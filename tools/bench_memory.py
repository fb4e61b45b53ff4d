"""Peak memory next to ONNX Runtime and OpenVINO, every measurement in a new process (Linux).

    python tools/bench_memory.py zoo/*.onnx [--inferences 3]

Each process imports its runtime, loads one model and runs it. Per model and runtime there are up
to three states: 'model' (from the ONNX file, no cache), 'store' (the same, and filling an empty
cache) and 'warm' (from that cache). 'peak' is the process's own high-water mark of resident memory
(VmHWM), 'resident' what it holds after the inferences, 'tree' the highest sum over the process and
its children that was seen (compilers that run in processes of their own are in it; pages that
processes share count once per process), all in MiB. The first table is the bare import with the
device opened. Ratios are to the better of the peers in the same state; one without a cache has its
'model' state there. Writes docs/memory.json. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench_startup import DOCS, ROOT, machine

RUNTIMES = ("clinfer-cpu", "onnxruntime", "openvino")
CHOICES = ("clinfer-cpu", "clinfer-pocl", "clinfer-intel", "clinfer-gpu", "onnxruntime", "openvino")
PEERS = ("onnxruntime", "openvino")
UNCACHED = ("onnxruntime",)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.01

Found = dict[str, dict[str, Any]]


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--inferences", type=int, default=3)
    parser.add_argument("--runtimes", nargs="+", choices=CHOICES, default=RUNTIMES)
    parser.add_argument("--output", type=Path, default=DOCS / "memory.json")
    options = parser.parse_args()
    document: dict[str, Any] = {"machine": machine(), "import": {}, "models": {}}
    for runtime in options.runtimes:
        document["import"][runtime] = {"import": child(runtime, [])}
    show("bare import", document["import"])
    for model in options.models:
        found = {r: measure(model, r, options.inferences) for r in options.runtimes}
        document["models"][model.stem] = found
        show(model.stem, found)
    options.output.write_text(json.dumps(document, indent=2) + "\n")


def measure(model: Path, runtime: str, inferences: int) -> Found:
    """The runtime's states for a model; none where it cannot load it."""
    arguments = [str(model), "--inferences", str(inferences)]
    found: Found = {}
    try:
        found["model"] = child(runtime, arguments)
        if runtime in UNCACHED:
            return found
        with tempfile.TemporaryDirectory(prefix="clinfer-memory-") as cache:
            for state in ("store", "warm"):
                found[state] = child(runtime, [*arguments, "--cache", cache])
    except RuntimeError as error:
        print(error, file=sys.stderr)
    return found


def child(runtime: str, arguments: list[str]) -> dict[str, Any]:
    """One process's report with the peak of its tree; raises RuntimeError where it fails."""
    folder = tempfile.mkdtemp(prefix="clinfer-driver-")
    command = [sys.executable, str(ROOT / "tools" / "memory_child.py"), runtime, *arguments]
    environment = {**os.environ, "POCL_CACHE_DIR": folder, "PYOPENCL_NO_CACHE": "1"}
    try:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            watch = _Watch(process.pid)
            line = process.stdout.readline()
            tree = watch.stop()
            process.stdin.close()
            process.stdin = None
            log = process.communicate()[1]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not line:
        raise RuntimeError(f"{runtime} {' '.join(arguments)}: {log.strip().splitlines()[-1:]}")
    report: dict[str, Any] = json.loads(line)
    return {**report, "tree": max(tree, report["peak"])}


class _Watch:
    """Sums the resident memory of a process and its descendants, again and again."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Ends the watch; the highest sum in bytes."""
        self._end.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_SECONDS):
            self._most = max(self._most, sum(map(_resident, _tree(self._pid))))


def _tree(pid: int) -> list[int]:
    """A process and its descendants, by the lists of children of each of its threads."""
    found = [pid]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                with suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def ratio(found: dict[str, Found], runtime: str, state: str) -> float | None:
    """A runtime's peak over the better peer's in that state; None for a peer."""
    peers = [s.get(state, s.get("model")) for r, s in found.items() if r in PEERS]
    known = [report["peak"] for report in peers if report is not None]
    if runtime in PEERS or not known:
        return None
    return float(found[runtime][state]["peak"] / min(known))


def show(name: str, found: dict[str, Found]) -> None:
    """The model's table."""
    columns = ("peak", "resident", "anonymous", "file", "tree")
    print(f"\n{name} (MiB)".ljust(30) + "".join(f"{c:>11}" for c in columns) + f"{'ratio':>8}")
    for runtime, states in found.items():
        for state, report in states.items():
            cells = "".join(f"{report[c] / 2**20:11.0f}" for c in columns)
            worth = ratio(found, runtime, state)
            last = f"{worth:8.2f}" if worth is not None else ""
            print(f"{runtime:16}{state:13}{cells}{last}", flush=True)


if __name__ == "__main__":
    main()
