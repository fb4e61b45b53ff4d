"""Run time next to ONNX Runtime, OpenVINO and tinygrad: one process each, rounds interleaved.

    python tools/bench_peers.py zoo/*.onnx [--rounds 5] [--seconds 1] [--tinygrad]
    python tools/bench_peers.py zoo/*.onnx --runtimes clinfer-intel onnxruntime openvino
    python tools/bench_peers.py --kernel [...]              single operators, see bench_operators.py

Batch 1, float32, the same threads. Each runtime keeps its process; in every round each runs for the
given time while the others wait; the first round is dropped. Prints medians, spreads and ratios to
the faster of ONNX Runtime and OpenVINO, and their geometric mean per runtime of clinfer; writes
docs/peers.json and docs/images/peers.png. clinfer-cpu is the CPU device that clinfer takes by
itself, clinfer-pocl and clinfer-intel are those runtimes. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench_startup import DOCS, ROOT, machine

RUNTIMES = ("clinfer-cpu", "onnxruntime", "openvino")
OURS = ("clinfer-cpu", "clinfer-pocl", "clinfer-intel")
PEERS = ("onnxruntime", "openvino")


def main() -> None:
    """Measures, prints, writes."""
    if sys.argv[1:2] == ["--kernel"]:
        import bench_operators

        bench_operators.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runtimes", nargs="+", choices=(*OURS, *PEERS), default=RUNTIMES)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--tinygrad", action="store_true")
    parser.add_argument("--output", type=Path, default=DOCS / "peers.json")
    options = parser.parse_args()
    runtimes = [*options.runtimes, *(["tinygrad"] if options.tinygrad else [])]
    document: dict[str, Any] = {"machine": machine(), "models": {}}
    for model in options.models:
        found = measure(model, runtimes, options.rounds, options.seconds, options.precision)
        document["models"][model.stem] = found
        show(model.stem, found)
    document["geometric_means"] = {}
    for runtime in runtimes:
        every = document["models"].values()
        ratios = [r for found in every if (r := ratio(found, runtime)) is not None]
        if ratios:
            mean = math.exp(statistics.fmean(math.log(r) for r in ratios))
            document["geometric_means"][runtime] = mean
            print(f"{runtime} / the faster peer: mean {mean:.2f}, worst {max(ratios):.2f}")
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    if options.output.parent == DOCS:
        from bench_pictures import peers_picture

        (DOCS / "images").mkdir(exist_ok=True)
        peers_picture(document, DOCS / "images" / "peers.png")


def measure(
    model: Path, runtimes: list[str], rounds: int, seconds: float, precision: str = "f32"
) -> dict[str, dict[str, float]]:
    """Median and quartiles of each runtime's inferences, in seconds; one that fails is left out."""
    processes = {r: p for r in runtimes if (p := start(r, model, precision)) is not None}
    times: dict[str, list[float]] = {r: [] for r in processes}
    for turn in range(rounds + 1):
        for runtime, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            batch = json.loads(process.stdout.readline())
            if turn:
                times[runtime] += batch
    for process in processes.values():
        process.communicate()
    return {r: summary(values) for r, values in times.items()}


def start(runtime: str, model: Path, precision: str = "f32") -> subprocess.Popen[str] | None:
    """The runtime's process with the model loaded; None where it cannot load it."""
    child = [sys.executable, str(ROOT / "tools" / "bench_child.py"), runtime, str(model)]
    process = subprocess.Popen(
        [*child, "--precision", precision, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert process.stdout is not None
    if process.stdout.readline():
        return process
    _, log = process.communicate()
    print(f"{runtime} cannot run {model}: {log.strip().splitlines()[-1:]}", file=sys.stderr)
    return None


def summary(values: list[float]) -> dict[str, float]:
    """Median, quartiles and count."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high, "runs": len(values)}


def ratio(found: dict[str, dict[str, float]], runtime: str) -> float | None:
    """The median of one of our runtimes over the faster peer's; None where there is none."""
    peers = [found[r]["median"] for r in PEERS if r in found]
    if not peers or runtime not in OURS or runtime not in found:
        return None
    return found[runtime]["median"] / min(peers)


def show(name: str, found: dict[str, dict[str, float]]) -> None:
    """The model's row."""
    cells = []
    for runtime, s in found.items():
        worth = ratio(found, runtime)
        times = f"{s['median'] * 1e3:.1f} ({s['low'] * 1e3:.1f}..{s['high'] * 1e3:.1f})"
        cells.append(f"{runtime} {times}" + (f" x {worth:.2f}" if worth is not None else ""))
    print(f"{name:22} ms: " + ", ".join(cells), flush=True)


if __name__ == "__main__":
    main()
