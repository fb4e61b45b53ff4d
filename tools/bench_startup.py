"""Start-up times next to ONNX Runtime and OpenVINO, every measurement in a new process.

    python tools/bench_startup.py zoo/resnet50.onnx zoo/bert_base.onnx [--rounds 5]
    python tools/bench_startup.py zoo/resnet50.onnx --runtimes clinfer-intel openvino

Per model and runtime: load cold (every cache empty, the driver's too), load warm through
read_model, load warm through the path, each also in seconds of processors (cpu), and the whole
process from its start to the first result.
The runtimes take turns in each round; medians are reported. Writes docs/startup.json and two
pictures, docs/images/load_time.png and docs/images/model_or_path.png. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
RUNTIMES = ("clinfer-cpu", "clinfer-gpu", "onnxruntime", "openvino")
CHOICES = (*RUNTIMES, "clinfer-pocl", "clinfer-intel")
CACHING = ("clinfer-cpu", "clinfer-gpu", "clinfer-pocl", "clinfer-intel", "openvino")


def main() -> None:
    """Measures, prints, writes JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, choices=CHOICES)
    parser.add_argument("--output", type=Path, default=DOCS / "startup.json")
    options = parser.parse_args()
    document = {"machine": machine(), "rounds": options.rounds, "models": {}}
    for model in options.models:
        document["models"][model.stem] = measure(model, options.runtimes, options.rounds)
        show(model.stem, document["models"][model.stem])
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    if options.output.parent == DOCS:
        from bench_pictures import startup_pictures

        startup_pictures(document, DOCS / "images")


def measure(model: Path, runtimes: list[str], rounds: int) -> dict[str, Any]:
    """Medians of every measurement of every runtime, in seconds."""
    samples: dict[str, dict[str, list[float]]] = {r: {} for r in runtimes}
    with tempfile.TemporaryDirectory(prefix="clinfer-startup-") as folder:
        base = Path(folder)
        for turn in range(rounds):
            for runtime in runtimes:
                for name, value in one_turn(model, runtime, base / f"{runtime}{turn}").items():
                    samples[runtime].setdefault(name, []).append(value)
    return {
        runtime: {name: statistics.median(values) for name, values in found.items()}
        for runtime, found in samples.items()
    }


def one_turn(model: Path, runtime: str, folder: Path) -> dict[str, float]:
    """One runtime's measurements with caches of their own, cold first."""
    cache = str(folder / "cache") if runtime in CACHING else ""
    found = {}
    cold = child(model, runtime, folder / "cold", cache)
    found["load_cold"] = cold["load"]
    found["process_cold"] = cold["process"]
    if not cache:
        return found
    for through in ("model", "path"):
        warm = child(model, runtime, folder / through, cache, through)
        if not is_warm(warm):  # OpenVINO keeps an entry for each of the two ways
            warm = child(model, runtime, folder / f"{through}2", cache, through)
        if not is_warm(warm):
            raise SystemExit(f"{runtime} did not load {model} from its cache: {warm}")
        found[f"load_warm_{through}"] = warm["load"]
        found[f"cpu_warm_{through}"] = warm["cpu"]
        found[f"process_warm_{through}"] = warm["process"]
    shutil.rmtree(folder)
    return found


def is_warm(report: dict[str, Any]) -> bool:
    """Whether nothing was compiled: a whole model, or every program, came from the cache."""
    return bool(report["cached"]) or report.get("built") == 0


def child(
    model: Path, runtime: str, driver: Path, cache: str, through: str = "path"
) -> dict[str, Any]:
    """One process with an empty driver cache; `process` is its wall time to the first result."""
    driver.mkdir(parents=True)
    environment = {
        **os.environ,
        "POCL_CACHE_DIR": str(driver),
        "NEO_CACHE_PERSISTENT": "0",
        "CUDA_CACHE_DISABLE": "1",
        "PYOPENCL_NO_CACHE": "1",
    }
    # Installed packages have their bytecode; a checkout has it after the first, cold run.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, str(ROOT / "tools" / "bench_child.py"), runtime, str(model)]
    command += ["--cache", cache, "--through", through]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        wall = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return {**json.loads(line), "process": wall}


def show(name: str, results: dict[str, Any]) -> None:
    """The model's table."""
    columns = list(dict.fromkeys(c for found in results.values() for c in found))
    print(f"\n{name} (ms)".ljust(16) + "".join(f"{c:>20}" for c in columns))
    for runtime, found in results.items():
        cells = (f"{found[c] * 1e3:20.0f}" if c in found else f"{'-':>20}" for c in columns)
        print(f"{runtime:15}" + "".join(cells), flush=True)


def machine() -> dict[str, Any]:
    """Processor, cores and versions, for the reader of the numbers."""
    from importlib.metadata import version

    model = "unknown"
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    packages = ("onnxruntime", "openvino", "pyopencl", "pocl-binary-distribution", "numpy")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
