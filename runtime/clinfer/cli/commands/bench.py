"""`clinfer bench`: latency and throughput, with the options of OpenVINO's benchmark_app."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cli import common, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.extensions import extension_argument
from clinfer.cli.measure import Effort, Measured, measure
from clinfer.cli.output import emit_json, progress_on_terminal
from clinfer.errors import InputError, PropertyError

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.core import Core

_SECONDS = 3.0
# benchmark_app's words for a hint, and the property's values.
_HINTS = {
    "latency": "LATENCY",
    "throughput": "THROUGHPUT",
    "tput": "THROUGHPUT",
    "cumulative_throughput": "CUMULATIVE_THROUGHPUT",
    "ctput": "CUMULATIVE_THROUGHPUT",
    "none": "UNDEFINED",
}
_REPORTS = ("csv", "no_counters", "average_counters")


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and benchmark_app's -m -d -i -hint -nstreams -nthreads -nireq -niter -t -b ..."""
    parser.add_argument("model", nargs="?", metavar="MODEL", type=Path, help="an ONNX file")
    extension_argument(parser, "-extensions")
    parser.add_argument("-m", dest="named_model", metavar="MODEL", type=Path, help="the same")
    common.device_argument(parser, "-d")
    remembering_arguments(parser)
    shapes.shape_argument(parser, "-shape")
    parser.add_argument(
        "-data_shape",
        metavar="NAME[1,128]",
        type=shapes.parse_groups,
        default={},
        help="shapes of the data, where the model keeps its sizes free; several, "
        "NAME[1,64][1,128], are used in turn",
    )
    parser.add_argument(
        "-b", metavar="N", type=common.positive_count, help="the first size of every input"
    )
    parser.add_argument(
        "--input",
        "-i",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="an input's array, or an .npz file with arrays by name; default: random values",
    )
    _effort_arguments(parser)
    _report_arguments(parser)


def _effort_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-hint",
        choices=_HINTS,
        help="what to measure for; default: latency, with one request, and then throughput",
    )
    count = common.positive_count
    parser.add_argument("-nstreams", metavar="N", type=count, help="NUM_STREAMS")
    parser.add_argument("-nthreads", metavar="N", type=count, help="INFERENCE_NUM_THREADS")
    parser.add_argument(
        "-nireq",
        "--requests",
        metavar="N",
        type=count,
        help="requests side by side; default: OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    )
    parser.add_argument(
        "-niter", metavar="N", type=count, help="inferences per measurement; then -t has no default"
    )
    parser.add_argument(
        "-t",
        "--seconds",
        metavar="SECONDS",
        type=common.positive_seconds,
        help=f"time per measurement; default: {_SECONDS:g}",
    )


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-pc", action="store_true", help="also the time of each kernel")
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="TRACE.json",
        help="as -pc; also writes a trace that Perfetto opens",
    )
    parser.add_argument(
        "-report_type",
        choices=_REPORTS,
        help="writes benchmark_report.csv; average_counters: and the kernels' times",
    )
    parser.add_argument(
        "-report_folder", type=Path, default=Path(), metavar="DIR", help="where; default: here"
    )
    parser.add_argument(
        "--cold",
        action="store_true",
        help="also how long the model takes to load with every cache empty, in a new process",
    )


def run(options: argparse.Namespace) -> int:
    """Measures and prints."""
    path = _path(options)
    if options.profile is not None:
        common.check_output("--profile", options.profile)
    counted = options.pc or options.profile is not None or options.report_type == _REPORTS[2]
    with ExitStack() as stack:
        if options.no_cache:  # a model is compiled once for each measurement, and built once
            folder = tempfile.TemporaryDirectory(prefix="clinfer-bench-")
            options.no_cache, options.cache_dir = False, stack.enter_context(folder)
        core = common.core(options)
        options.device = common.one_device(options.device)
        model = _model(core, path, options)
        start = time.perf_counter()
        config = _config(options, options.hint or "latency")
        compiled = core.compile_model(model, options.device, config)
        report = _about(path, compiled, time.perf_counter() - start)
        feeds = _feeds(compiled, options)
        report["inputs"] = [{name: list(a.shape) for name, a in feed.items()} for feed in feeds]
        report["measurements"] = [_measured(compiled, feeds, options.hint or "latency", options)]
        if options.hint is None:
            config = _config(options, "throughput")
            other = core.compile_model(model, options.device, config)
            report["measurements"].append(_measured(other, feeds, "throughput", options))
        if options.cold:
            from clinfer.cli.loads import loads

            report["load"].update(loads(path, options.device, _shapes(core, path, options)))
        if counted:
            _count(core.compile_model(model, options.device, {"PERF_COUNT": True}), feeds, report,
                   options.profile)  # fmt: skip
    if options.report_type is not None:
        from clinfer.cli.reports import write_reports

        report["files"] = write_reports(report, options.report_folder)
    if options.json:
        emit_json(report)
    else:
        _print(report, options)
    return 0


def _path(options: argparse.Namespace) -> Path:
    given = [path for path in (options.model, options.named_model) if path is not None]
    if len(given) != 1:
        raise PropertyError("which model? give MODEL, or -m MODEL, once")
    path: Path = given[0]
    return path


def _model(core: Core, path: Path, options: argparse.Namespace) -> Any:
    return shapes.reshaped(core, path, _shapes(core, path, options))


def _shapes(core: Core, path: Path, options: argparse.Namespace) -> shapes.Shapes:
    """What --shape says, or -b of each input that has sizes."""
    asked: shapes.Shapes = options.shape
    if options.b is None:
        return asked
    model = core.read_model(path)
    shapes.reshape(model, asked)
    return [(p.name, [options.b, *p.shape[1:]]) for p in model.inputs if p.shape]


def _config(options: argparse.Namespace, hint: str) -> dict[str, Any]:
    given = {"NUM_STREAMS": options.nstreams, "INFERENCE_NUM_THREADS": options.nthreads}
    return {
        "PERFORMANCE_HINT": _HINTS[hint],
        **{name: value for name, value in given.items() if value is not None},
    }


def _about(path: Path, compiled: CompiledModel, seconds: float) -> dict[str, Any]:
    load = {
        "seconds": seconds,
        "from_cache": compiled.get_property("LOADED_FROM_CACHE"),
        "programs_built": compiled.programs_built,
    }
    device = compiled.get_property("FULL_DEVICE_NAME")
    return {"model": str(path), "device": device, "load": load}


def _feeds(compiled: CompiledModel, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The arrays of each inference in turn: one set, or as many as -data_shape has shapes."""
    from clinfer.cli.sizes import data_sizes

    if not options.data_shape:
        return [common.inputs_for(compiled.inputs, options.input, compiled.plan)]
    if options.input:
        raise InputError("-data_shape is for random values, and --input gives arrays: give one")
    return [
        common.random_inputs(compiled.inputs, sizes)
        for sizes in data_sizes(compiled.plan, compiled.inputs, options.data_shape)
    ]


def _measured(
    compiled: CompiledModel, feeds: list[dict[str, Any]], hint: str, options: argparse.Namespace
) -> dict[str, Any]:
    optimal = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    alone = options.hint is None and hint == "latency"
    requests = 1 if alone else options.requests or optimal
    seconds = options.seconds
    if seconds is None and options.niter is None:
        seconds = _SECONDS
    with progress_on_terminal(f"measure {hint}", 1) as shown:
        found: Measured = measure(compiled, feeds, requests, Effort(seconds, options.niter))
        shown.step(hint)
    return {
        "hint": hint,
        "streams": compiled.get_property("NUM_STREAMS"),
        "requests": found.requests,
        "iterations": found.iterations,
        "seconds": found.seconds,
        "latency_ms": found.latency_ms,
        "throughput_per_second": found.per_second,
    }


def _count(
    compiled: CompiledModel,
    feeds: list[dict[str, Any]],
    report: dict[str, Any],
    trace: Path | None,
) -> None:
    """Adds the time of each kernel to the report."""
    from clinfer.cli.profile import profile

    rows, peaks = profile(compiled, feeds[0], Path(report["model"]).name, trace)
    report["kernels"], report["peaks"] = rows, peaks._asdict()


def _print(report: dict[str, Any], options: argparse.Namespace) -> None:
    print(f"{report['model']} on {report['device']}")
    load = report["load"]
    how = "from the cache" if load["from_cache"] else f"{load['programs_built']} programs built"
    print(f"load        {load['seconds']:.3f} s, {how}")
    if "cold" in load:
        print(
            f"            cold {load['cold']:.3f} s ({load['built']} programs built), "
            f"warm {load['warm']:.3f} s"
        )
    for sizes in report["inputs"]:
        print("inputs      " + ", ".join(f"{name} {shape}" for name, shape in sizes.items()))
    for row in report["measurements"]:
        latency = "  ".join(f"{name} {ms:.3f} ms" for name, ms in row["latency_ms"].items())
        print(f"{row['hint']:11} {latency}")
        print(
            f"            {row['throughput_per_second']:.1f} inferences/s: {row['iterations']} in "
            f"{row['seconds']:.1f} s, {row['requests']} request"
            + ("s side by side" if row["requests"] > 1 else "")
        )
    if "kernels" in report:
        from clinfer.cli.profile import show

        show(report["kernels"], report["peaks"], options.profile)
    for file in report.get("files", ()):
        print(f"wrote {file}")
