"""`clinfer run`: one inference from files, predictions and accuracy where there are labels."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.output import cache_text, emit_json, table
from clinfer.errors import InputError, listed

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel

_SHOWN = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL --input --output --device --cache-dir --shape."""
    common.model_argument(parser)
    common.device_argument(parser)
    remembering_arguments(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input's array (.npy), an .npz file with arrays by name, or a picture (.jpg, .png "
        "...); default: MODEL's name with .npz where that file exists, else random values",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="write outputs as .npy files")


def run(options: argparse.Namespace) -> int:
    """Compiles, runs once, prints what came out."""
    core = common.core(options)
    start = time.perf_counter()
    change = (options.shape, pictures.preparation(options))
    model = shapes.reshaped(core, options.model, *change)
    compiled = core.compile_model(model, common.one_device(options.device))
    load = time.perf_counter() - start
    arrays, origin = _inputs(options, compiled)
    names = [port.name for port in compiled.inputs]
    request = compiled.create_infer_request()
    start = time.perf_counter()
    results = request.infer({n: arrays[n] for n in names if n in arrays})
    seconds = time.perf_counter() - start
    report = {
        "model": str(options.model),
        "device": compiled.get_property("FULL_DEVICE_NAME"),
        "loaded_from_cache": compiled.get_property("LOADED_FROM_CACHE"),
        "programs_built": compiled.programs_built,
        "host_steps": len(compiled.host_steps),
        "load_seconds": load,
        "run_seconds": seconds,
        "cache": core.cache_statistics(),
        "inputs": origin,
        "outputs": [_summary(n, v) for n, v in results.to_dict().items()],
    }
    scores = results[0]
    labels = compiled.plan.metadata.get("clinfer.labels", "")
    if _is_classes(scores):
        report["predictions"] = _predictions(scores, labels)
        if "label" in arrays and np.shape(arrays["label"]) == scores.shape[:1]:
            right = np.argmax(scores, axis=1) == arrays["label"]
            report["accuracy"] = float(np.mean(right))
            report["right"] = int(np.sum(right))
    if options.output is not None:
        report["files"] = _write(options.output, results.to_dict())
    if options.json:
        emit_json(report)
    else:
        _print(report)
    return 0


def _inputs(options: argparse.Namespace, compiled: CompiledModel) -> tuple[dict[str, Any], str]:
    ports = compiled.inputs
    files = list(options.input)
    beside = options.model.with_suffix(".npz")
    if not files and beside.is_file():
        files = [str(beside)]
    if not files:
        arrays = common.inputs_for(ports, [], compiled.plan)
        return arrays, "random values (give arrays with --input)"
    arrays, origin = common.read_inputs(files, ports), ", ".join(files)
    missing = [port.name for port in ports if port.name not in arrays]
    if missing:
        raise InputError(
            f"no value for input {listed(map(repr, missing))}: {origin} holds "
            f"{listed(sorted(arrays)) or 'nothing'}; name the arrays so, or give --input NAME=FILE"
        )
    return arrays, origin


def _is_classes(scores: Any) -> bool:
    return (
        isinstance(scores, np.ndarray)
        and scores.ndim == 2
        and scores.dtype.kind == "f"
        and scores.shape[0] > 0
        and 1 < scores.shape[1] <= 100_000
    )


def _predictions(scores: Any, labels: str) -> list[str | int]:
    """The best class of each row: its name, or its number where the model names none."""
    names = labels.split(",") if labels else []
    best = np.argmax(scores, axis=1)
    return [names[i] if i < len(names) else i for i in best.tolist()]


def _summary(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.size == 0:
        return {"output": name, "type": _type(value)}
    return {
        "output": name,
        "type": _type(value),
        "shape": list(value.shape),
        "min": float(value.min()),
        "mean": float(value.mean(dtype=np.float64)),
        "max": float(value.max()),
    }


def _type(value: Any) -> str:
    if isinstance(value, np.ndarray):
        kind = "string" if value.dtype.kind in "OU" else value.dtype
        return f"{kind}{list(value.shape)}"
    return f"sequence of {len(value)}" if isinstance(value, list) else type(value).__name__


def _write(folder: Path, results: Mapping[str, Any]) -> list[str]:
    """One file per output: .npy, or .npz with '0', '1' ... for the elements of a sequence."""
    files: list[str] = []
    with common.writing("--output", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for index, (name, value) in enumerate(results.items()):
            base = folder / _file_name(name, index, files)
            if isinstance(value, list):
                path = base.with_name(f"{base.name}.npz")
                np.savez(path, **{str(n): _storable(item) for n, item in enumerate(value)})
            else:
                path = base.with_name(f"{base.name}.npy")
                np.save(path, _storable(value), allow_pickle=False)
            files.append(str(path))
    return files


def _file_name(name: str, index: int, taken: list[str]) -> str:
    """The output's name without what a file's name cannot have; another for each output."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")
    used = {Path(file).stem for file in taken}
    return plain if plain and plain not in used else f"{plain}_{index}".lstrip("_")


def _storable(value: Any) -> Any:
    """An array whose file NumPy reads back: strings as its own strings, bfloat16 as float32."""
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return array.astype(str)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _print(report: dict[str, Any]) -> None:
    origin = "from the cache" if report["loaded_from_cache"] else "compiled"
    print(
        f"{report['model']} on {report['device']}: {origin} in {report['load_seconds']:.2f} s "
        f"({report['programs_built']} programs built, {report['host_steps']} host steps), "
        f"run in {report['run_seconds'] * 1e3:.1f} ms"
    )
    for counts in report["cache"]:
        print(cache_text(counts))
    print(f"inputs: {report['inputs']}")
    table(report["outputs"], ["output", "type", "min", "mean", "max"])
    if "predictions" in report:
        shown = " ".join(map(str, report["predictions"][:_SHOWN]))
        more = len(report["predictions"]) - _SHOWN
        print(f"predictions: {shown}" + (f" ... ({more} more)" if more > 0 else ""))
    if "accuracy" in report:
        count = len(report["predictions"])
        print(f"accuracy: {report['accuracy']:.1%} ({report['right']} of {count})")
    for file in report.get("files", ()):
        print(f"wrote {file}")
