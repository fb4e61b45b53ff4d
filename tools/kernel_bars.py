"""The static bar: what the kernels of a model are on GPUs that are not there.

    python tools/kernel_bars.py             every case on every GPU
    python tools/kernel_bars.py --case bert_base-1 --gpu h200 a770 --kernels 8
    python tools/kernel_bars.py MODEL.onnx --size batch=1 sequence=128 --gpu h200
    python tools/kernel_bars.py --check     fails where a figure is worse than its bar
    python tools/kernel_bars.py --accept    makes today's figures the bars and writes docs
    python tools/kernel_bars.py zoo/bert_base.onnx --measured OUT/steps-bert_base.json --gpu h200

Per kernel: share of multiply-adds and matrix instructions in the hot loop, width of loads,
registers, spills, groups against the GPU's units, predicted time. Compilers that are not there skip
their GPUs, with a line that says so. docs/kernel-bars.md tells how figures are made.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

import kernel_listings as listings  # noqa: E402
from clinfer.config import DYNAMIC  # noqa: E402
from clinfer.device.target import exact_precision  # noqa: E402
from clinfer.properties import PRECISIONS  # noqa: E402
from clinfer_kernels.spec import Target  # noqa: E402
from kernel_compilers import RefusedError  # noqa: E402
from kernel_gpus import GPUS, Gpu  # noqa: E402
from kernel_models import MODELS, Launches, Step, launches_of, plan_of  # noqa: E402
from kernel_predict import Analysis, analysed, microseconds  # noqa: E402

BARS = ROOT / "docs" / "kernel-bars.json"
DOCUMENT = ROOT / "docs" / "kernel-bars.md"
_MAJOR = re.compile(r"[a-z]+ \d+")
_BEGIN, _END = "<!-- table: written by tools/kernel_bars.py -->", "<!-- end of the table -->"
DEFAULT_GPUS = ("h200", "mi250", "mi300x", "rx7900", "a770")


@dataclass(frozen=True)
class Case:
    """A model of `kernel_models` at a batch size, with its free sizes, at a precision."""

    model: str
    batch: int
    sizes: Mapping[str, int]
    precision: str = DYNAMIC


CASES = {
    f"{model}-{batch}": Case(model, batch, {"batch": batch, "sequence": 128})
    for model in MODELS
    for batch in (1, 32)
}
CASES |= {
    f"{name}-f16": replace(CASES[name], precision="f16") for name in ("bert_base-32", "resnet50-32")
}


@dataclass(frozen=True)
class Kernel:
    """A program's launches in one inference; `analysis` None where it is refused, with `fault`."""

    entry: str
    steps: tuple[Step, ...]
    analysis: Analysis | None
    microseconds: float
    fault: str = ""

    @property
    def flops(self) -> int:
        """Of all launches."""
        return sum(step.flops for step in self.steps)


@dataclass(frozen=True)
class Figures:
    """A case on a GPU. `bound`: of the float32 peak, what the loops' mix of instructions allows;
    `share`: multiply-adds and matrix instructions in hot loops; `wide`: loops with 128-bit local
    loads; all weighted by flops. `milliseconds`: predicted, without what launches cost."""

    case: str
    gpu: str
    launches: int
    host: int
    milliseconds: float
    bound: float
    share: float
    wide: float
    spilling: int
    refused: int


# (figure, is larger better, what it may be worse by: a ratio, and an absolute amount)
_TOLERANCES = (
    ("launches", False, 0.0, 0),
    ("host", False, 0.0, 0),
    ("milliseconds", False, 0.10, 0.01),
    ("bound", True, 0.03, 0.01),
    ("share", True, 0.03, 0.01),
    ("wide", True, 0.0, 0.02),
    ("spilling", False, 0.0, 0),
    ("refused", False, 0.0, 0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="an ONNX file, in place of cases")
    parser.add_argument("--size", nargs="+", default=[], metavar="NAME=N", help="free dimensions")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--gpu", nargs="+", choices=GPUS, default=DEFAULT_GPUS, metavar="GPU")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=DYNAMIC, help="of the hint, for all cases"
    )
    parser.add_argument("--kernels", type=int, default=6, metavar="N", help="rows for each case")
    parser.add_argument("--check", action="store_true", help="against docs/kernel-bars.json")
    parser.add_argument("--accept", action="store_true", help="write bars and documentation")
    parser.add_argument("--measured", type=Path, nargs="+", help="steps-MODEL.json of a GPU")
    options = parser.parse_intermixed_args(arguments)
    if options.precision != DYNAMIC and (options.check or options.accept):
        parser.error("bars are those of the cases' own precisions")
    gpus = [GPUS[name] for name in options.gpu if _is_there(GPUS[name])]
    hinted = [_at(gpu, options.precision) for gpu in gpus]
    if options.measured:
        return _compare(options.measured, options.model, hinted)
    if options.model:
        sizes = {name: int(n) for name, _, n in (text.partition("=") for text in options.size)}
        for gpu in hinted:
            found = launches_of(plan_of(options.model, gpu.target), sizes)
            _show(options.model.stem, gpu, found, kernels_of(gpu, found), options.kernels)
        return 0
    figures = []
    for name in options.case:
        case = CASES[name]
        asked = options.precision if options.precision != DYNAMIC else case.precision
        for gpu in (_at(gpu, asked) for gpu in gpus):
            launches = launches_of(_plan(case.model, case.batch, gpu.target), case.sizes)
            kernels = kernels_of(gpu, launches)
            figures.append(_show(name, gpu, launches, kernels, options.kernels))
    faults = worse(_comparable(figures), bars()) if options.check else []
    for fault in faults:
        print(f"FAULT {fault}")
    if options.accept:
        accept(figures)
    return 1 if faults else 0


def _at(gpu: Gpu, hint: str) -> Gpu:
    precision = exact_precision(gpu.target) if hint == DYNAMIC else hint
    return replace(gpu, target=gpu.target._replace(precision=precision))


def _is_there(gpu: Gpu) -> bool:
    reason = listings.missing(gpu.vendor)
    if reason:
        print(f"skipped: {gpu.title}: {reason}", flush=True)
    return not reason


@lru_cache(maxsize=8)
def _plan(model: str, batch: int, target: Target) -> Any:
    return plan_of(MODELS[model](batch), target)


def kernels_of(gpu: Gpu, launches: Launches) -> list[Kernel]:
    """Every program of the launches, the one that takes most time first."""
    by_text: dict[tuple[str, str], list[Step]] = {}
    for step in launches.steps:
        by_text.setdefault((step.source, step.options), []).append(step)
    found = [_kernel(gpu, tuple(steps)) for steps in by_text.values()]
    return sorted(found, key=lambda kernel: -kernel.microseconds)


def _kernel(gpu: Gpu, steps: tuple[Step, ...]) -> Kernel:
    first = steps[0]
    gpu = gpu.running(first.source)
    facts = (first.source, first.entry, first.options, gpu.arch, gpu.vendor)
    try:
        analysis = analysed(listings.compiled(*facts), gpu, first.items, first.entry)
    except RefusedError as error:
        return Kernel(first.entry, steps, None, 0.0, str(error))
    total = sum(microseconds(gpu, step, analysis) for step in steps)
    return Kernel(first.entry, steps, analysis, total)


def figures_of(name: str, gpu: Gpu, launches: Launches, kernels: Sequence[Kernel]) -> Figures:
    """What is held against the bar."""
    flops = sum(kernel.flops for kernel in kernels) or 1
    known = [(kernel, kernel.analysis) for kernel in kernels if kernel.analysis is not None]

    def weighted(value: Any) -> float:
        return round(sum(k.flops * value(a) for k, a in known if a.adds) / flops, 4)

    return Figures(
        name,
        gpu.name,
        len(launches.steps),
        launches.host,
        round(sum(kernel.microseconds for kernel in kernels) / 1e3, 4),
        weighted(lambda a: a.bound),
        weighted(lambda a: a.share),
        weighted(lambda a: a.local_width >= 128),
        sum(a.spilled > 0 for _, a in known),
        len(kernels) - len(known),
    )


def worse(figures: Sequence[Figures], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each figure that is worse than its bar by more than the tolerance, and for each
    case that has no bar."""
    faults = []
    for found in figures:
        name = f"{found.case} on {found.gpu}"
        bar = known.get(name)
        if bar is None:
            faults.append(f"{name} has no bar: --accept")
            continue
        for field, larger, ratio, amount in _TOLERANCES:
            now, before = getattr(found, field), bar[field]
            loss = before - now if larger else now - before
            if loss > ratio * before + amount:
                faults.append(f"{name}: {field} {now:g}, the bar is {before:g}")
    return faults


def _comparable(figures: Sequence[Figures]) -> list[Figures]:
    """Those of GPUs whose compilers are of the versions that the bars are of, but for the minor."""
    of_bars = json.loads(BARS.read_text())["compilers"]
    others = set()
    for vendor in {GPUS[found.gpu].vendor for found in figures}:
        made, expected = listings.compilers(vendor), of_bars.get(vendor, "")
        if _MAJOR.findall(made) != _MAJOR.findall(expected):
            print(f"not compared: {vendor}: the bars are of {expected}, these figures of {made}")
            others.add(vendor)
    return [found for found in figures if GPUS[found.gpu].vendor not in others]


def bars() -> dict[str, dict[str, Any]]:
    """The committed bars by 'CASE on GPU'."""
    found: dict[str, dict[str, Any]] = json.loads(BARS.read_text())["bars"] if BARS.exists() else {}
    return found


def accept(figures: Sequence[Figures]) -> None:
    """Writes the figures as bars; those of GPUs that were skipped stay."""
    kept = bars()
    for found in figures:
        kept[f"{found.case} on {found.gpu}"] = {
            field: getattr(found, field) for field, *_ in _TOLERANCES
        }
    order = sorted(kept, key=lambda name: (_case_order(name), list(GPUS).index(name.split()[-1])))
    vendors = {GPUS[found.gpu].vendor for found in figures}
    before = json.loads(BARS.read_text())["compilers"] if BARS.exists() else {}
    compilers = {**before, **{vendor: listings.compilers(vendor) for vendor in sorted(vendors)}}
    document = {"compilers": compilers, "bars": {name: kept[name] for name in order}}
    BARS.write_text(json.dumps(document, indent=1) + "\n")
    text = DOCUMENT.read_text()
    head, tail = text.split(_BEGIN)[0], text.split(_END)[1]
    DOCUMENT.write_text(f"{head}{_BEGIN}\n\n{table(document)}\n\n{_END}{tail}")
    print(f"written: {BARS.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")


def _case_order(name: str) -> int:
    return list(CASES).index(name.split()[0])


def table(document: Mapping[str, Any]) -> str:
    """The bars as Markdown."""
    head = (
        "model and batch", "GPU", "launches", "predicted ms", "launches' own ms",
        "bound of float32 peak", "share of multiply-adds", "128-bit local loads", "spilling",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for name, bar in document["bars"].items():
        case, _, gpu = name.split()
        lines.append(
            (
                case.replace("-", ", "),
                GPUS[gpu].title,
                str(bar["launches"]) + (f" + {bar['host']} on the host" if bar["host"] else ""),
                f"{bar['milliseconds']:.2f}",
                f"{bar['launches'] * GPUS[gpu].launch / 1e3:.2f}",
                f"{bar['bound']:.0%}",
                f"{bar['share']:.0%}",
                f"{bar['wide']:.0%} of flops",
                f"{bar['spilling']} kernels" if bar["spilling"] else "none",
            )
        )
    made = "; ".join(f"{v}: {text}" for v, text in document["compilers"].items())
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\nCompilers: {made}."


def _show(name: str, gpu: Gpu, launches: Launches, kernels: Sequence[Kernel], rows: int) -> Figures:
    found = figures_of(name, gpu, launches, kernels)
    flops = sum(kernel.flops for kernel in kernels)
    print(
        f"\n{name} on {gpu.title}: {found.launches} launches ({found.host} host steps), "
        f"{flops / 1e9:.1f} GFLOP, predicted {found.milliseconds:.2f} ms + launches "
        f"{found.launches * gpu.launch / 1e3:.2f} ms; float32 peak {flops / gpu.peak / 1e6:.2f}; "
        f"bound {found.bound:.0%}, share {found.share:.0%}, 128-bit local loads {found.wide:.0%}"
    )
    for kernel in kernels[:rows]:
        print("  " + _row(kernel, gpu, flops))
    for kernel in kernels:
        if kernel.fault:
            print(f"  refused: {kernel.entry}: {kernel.fault}")
    return found


def _row(kernel: Kernel, gpu: Gpu, flops: int) -> str:
    a = kernel.analysis
    if a is None:
        return f"{kernel.entry}: refused"
    groups = sorted(step.groups for step in kernel.steps)
    matrix = f" matrix {'/'.join(a.matrix)}" if a.matrix else ""
    loads = "in flight under compute" if a.overlapped else "waits"
    return (
        f"{kernel.entry[:40]:40} x{len(kernel.steps):<3} {kernel.flops / max(1, flops):6.1%} flops"
        f"  groups {groups[0]}..{groups[-1]} on {gpu.units}  share {a.share:4.0%} "
        f"bound {a.bound:4.0%}{matrix}  local {a.local_width} global {a.global_width} bits  "
        f"{loads}  registers {a.registers or '-'} local {a.local} spilled {a.spilled}  "
        f"{kernel.microseconds:.0f} us"
    )


def _compare(files: Sequence[Path], model: Path | None, gpus: Sequence[Gpu]) -> int:
    """Predicted over measured time by kernel, for `steps-MODEL.json` of tools/gpu_first_run.py."""
    for file in files:
        record = json.loads(file.read_text())
        source = model or ROOT / "tests" / "models" / f"{record['model']}.onnx"
        for gpu in gpus:
            plan = plan_of(source, gpu.target)
            sizes = {
                str(dim): size
                for port in plan.inputs
                for dim, size in zip(port.shape or (), record["shapes"][port.name], strict=False)
            }
            kernels = kernels_of(gpu, launches_of(plan, sizes))
            print(f"\n{record['model']}: predicted for {gpu.title} over measured, microseconds")
            for kernel in kernels:
                measured = 1e6 * sum(
                    step["seconds"] for step in record["steps"] if step["kernel"] == kernel.entry
                )
                ratio = f"{kernel.microseconds / measured:.2f}" if measured else "not measured"
                times = f"{kernel.microseconds:10.1f} {measured:10.1f}"
                print(f"  {kernel.entry[:44]:44} x{len(kernel.steps):<3} {times}  {ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
