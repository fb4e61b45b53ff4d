"""Compiles every generated source for GPUs of Intel, AMD and NVIDIA, none of which has to be there.

    python tools/check_kernels.py                        every source, every GPU; several minutes
    python tools/check_kernels.py --quick                a subset, about a minute
    python tools/check_kernels.py --device gfx90a dg2 --json results.json
    python tools/check_kernels.py --from *.json --write  docs/kernels-checked.md from such files

Prints per GPU what was compiled, or why it was skipped. Exit code 1 where a kernel does not
compile, calls a function that nobody defines, or exceeds what the GPU has: work-group size, local
memory, registers, float64, float16; each is named. Spilled registers are reported, and fail with
--most-spilled BYTES. Packages: see docs/kernels-checked.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

import kernel_compilers as offline  # noqa: E402
import kernel_intel as intel  # noqa: E402
from clinfer.threads import usable_cores  # noqa: E402
from kernel_report import Report, document  # noqa: E402
from kernel_units import Unit, units_for  # noqa: E402
from kernel_usage import Result, Usage  # noqa: E402

DOCUMENT = ROOT / "docs" / "kernels-checked.md"
NAMES = (*(device.name for device in offline.DEVICES), *intel.PRODUCTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a subset of kernels and GPUs")
    parser.add_argument("--device", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="compilers at a time")
    parser.add_argument("--most-spilled", type=int, metavar="BYTES", help="more of it is a fault")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--from", type=Path, nargs="+", dest="sources", help="read results instead")
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCUMENT.name}")
    options = parser.parse_args(arguments)
    wanted = options.device or (("gfx90a", "sm_80", "dg2") if options.quick else NAMES)
    if options.sources:
        reports = [report for file in options.sources for report in loaded(file)]
    else:
        found = (check(name, options.quick, options.jobs) for name in wanted)
        reports = [report for report in found if report is not None]
    faults = [line for report in reports for line in report.faults(options.most_spilled)]
    for line in faults:
        print(f"FAULT {line}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in reports], separators=(",", ":")))
    if options.write:
        DOCUMENT.write_text(document(reports, DOCUMENT.read_text()))
        print(f"written: {DOCUMENT.relative_to(ROOT)}")
    return 1 if faults else 0


def check(name: str, quick: bool, jobs: int) -> Report | None:
    """Everything compiled for a GPU; None, and a line that says why, where it cannot be."""
    started = time.monotonic()
    if name in intel.PRODUCTS:
        reason = intel.missing()
        if not reason:
            device = intel.simulated(name)
            results = intel.compile_simulated(device, units_for(device.target, quick), jobs)
            report = Report(name, device.title, f"driver {device.driver}", tuple(results))
            return _told(report, started)
        print(f"skipped: {intel.PRODUCTS[name]}: {reason}", flush=True)
        return None
    gpu = next(device for device in offline.DEVICES if device.name == name)
    reason = gpu.missing()
    if reason:
        print(f"skipped: {gpu.title}: {reason}", flush=True)
        return None
    units = units_for(gpu.target, quick)
    results = offline.compile_offline(gpu, units, jobs)
    return _told(Report(name, gpu.title, offline.versions(gpu), tuple(results)), started)


def _told(report: Report, started: float) -> Report:
    print(f"{report.title}: {report.summary()}; {time.monotonic() - started:.0f} s", flush=True)
    return report


def loaded(file: Path) -> list[Report]:
    """Reports from a file that --json has written."""
    return [
        Report(
            row["name"],
            row["title"],
            row["compiler"],
            tuple(_result(result) for result in row["results"]),
        )
        for row in json.loads(file.read_text())
    ]


def _result(row: dict[str, object]) -> Result:
    unit, usage = row["unit"], row["usage"]
    assert isinstance(unit, dict)
    unit["group"] = tuple(unit["group"])
    assert usage is None or isinstance(usage, dict)
    faults = row["faults"]
    assert isinstance(faults, list)
    found = None if usage is None else Usage(**usage)
    return Result(str(row["device"]), Unit(**unit), found, tuple(faults))


if __name__ == "__main__":
    sys.exit(main())
