"""Intel's own driver as a compiler for GPUs that are not in the machine (clinfer.device.simulated).

Processes that see the simulated GPU read units as JSON lines and answer with JSON lines, so that a
compiler that crashes or hangs costs the kernel at hand only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

from clinfer.device.simulated import driver_library, environment
from clinfer_kernels.spec import Target
from kernel_compilers import first_error
from kernel_units import ROOT, Unit
from kernel_usage import Limits, Result, Usage, checked, limits_of

PRODUCTS = {
    "dg2": "Intel Arc A770 (dg2)",
    "pvc": "Intel Max (pvc)",
    "tgllp": "Intel Xe graphics (tgllp)",
    "skl": "Intel Gen9 graphics (skl)",
}
SECONDS = 120
_SPILL_MEM_SIZE_INTEL = 0x4109
_LOCAL_MEM_SIZE = 0x11B2
_PREFERRED_MULTIPLE = 0x11B3
_PRIVATE_MEM_SIZE = 0x11B4


def missing() -> str:
    """What is not installed; '' for nothing."""
    return "" if driver_library() else "intel-opencl-icd not found"


@dataclass(frozen=True)
class Simulated:
    """A product of the driver's, with the target that clinfer derives from it."""

    name: str
    title: str
    target: Target
    limits: Limits
    driver: str


def simulated(name: str) -> Simulated:
    """Asks the driver. Raises `RuntimeError` where the product does not start."""
    with TemporaryDirectory(prefix="clinfer-check-") as folder:
        child = _Child(name, Path(folder))
        try:
            facts = child.ask({"describe": True})
        finally:
            child.end()
    if "target" not in facts:
        raise RuntimeError(f"{PRODUCTS[name]}: {facts['fault']}")
    described = facts["target"]
    described["extensions"] = frozenset(described["extensions"])
    for field in ("subgroup_sizes", "matrix_units"):
        described[field] = tuple(described[field])
    target = Target(**described)
    return Simulated(name, PRODUCTS[name], target, limits_of(target), facts["driver"])


def compile_simulated(device: Simulated, units: Sequence[Unit], jobs: int) -> list[Result]:
    """Builds every unit in `jobs` processes."""
    waiting: SimpleQueue[Unit] = SimpleQueue()
    for unit in units:
        waiting.put(unit)
    with TemporaryDirectory(prefix="clinfer-check-") as folder, ThreadPoolExecutor(jobs) as pool:
        work = [
            pool.submit(_serve_queue, device, waiting, Path(folder) / str(number))
            for number in range(min(jobs, len(units)))
        ]
        found = {r.unit.digest: r for done in work for r in done.result()}
    return [checked(found[unit.digest], device.limits) for unit in units]


def _serve_queue(device: Simulated, waiting: SimpleQueue[Unit], folder: Path) -> list[Result]:
    results: list[Result] = []
    child = _Child(device.name, folder)
    try:
        while True:
            unit = waiting.get_nowait()
            answer = child.ask(asdict(unit))
            usage = Usage(**answer["usage"]) if "usage" in answer else None
            faults = (answer["fault"],) if "fault" in answer else ()
            results.append(Result(device.name, unit, usage, faults))
            if child.is_over:
                child = _Child(device.name, folder)
    except Empty:
        return results
    finally:
        child.end()


class _Child:
    """A process that sees the product."""

    def __init__(self, product: str, folder: Path) -> None:
        paths = [str(ROOT / part) for part in ("tools", "runtime", "kernels")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kernel_intel"],
            env={
                **os.environ,
                **environment(product, folder),
                "PYTHONPATH": os.pathsep.join(paths),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.is_over = False

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The process's answer; {'fault': ...} where it ends or takes too long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = Timer(SECONDS, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.is_over = True
        return {"fault": f"the compiler's process ended with status {self._process.wait()}"}

    def end(self) -> None:
        """Lets the process end."""
        self._process.kill()
        self._process.communicate()


# -- in the process that sees the product ----------------------------------------------------------


def serve() -> None:
    """Answers each line of standard input."""
    from clinfer.device.discover import open_device

    device = open_device("GPU")
    for line in sys.stdin:
        question = json.loads(line)
        answer = _described(device) if "describe" in question else _built(device, question)
        print(json.dumps(answer), flush=True)


def _described(device: Any) -> dict[str, Any]:
    target = device.target._asdict()
    target["extensions"] = sorted(target["extensions"])
    return {"target": target, "driver": device.info.driver_version}


def _built(device: Any, question: dict[str, Any]) -> dict[str, Any]:
    from clinfer.device.binding import Error, Kernel, as_sizes, ask
    from clinfer.device.compiling import check_group_size, compile_source
    from clinfer.device.sources import SourceProgram
    from clinfer.errors import BuildError

    group = tuple(question["group"])
    source = SourceProgram(question["source"], question["options"], question["entry"], group)
    try:
        program = compile_source(device.context, source, device.quirks)
        kernel = Kernel(program, source.entry)
        check_group_size(device.cl, kernel, source)
    except (BuildError, Error) as error:
        text = str(error)
        return {"fault": first_error(text) or " ".join(text.split())[:300]}

    def size(what: int) -> int:
        handles = (kernel.int_ptr, device.cl.int_ptr)
        return int(as_sizes(ask("clGetKernelWorkGroupInfo", handles, what))[0])

    usage = Usage(
        spilled=size(_SPILL_MEM_SIZE_INTEL),
        local=size(_LOCAL_MEM_SIZE),
        scratch=size(_PRIVATE_MEM_SIZE),
        binary=len(program.binary()),
        occupancy=size(_PREFERRED_MULTIPLE),
        most_items=kernel.work_group_limit(device.cl),
    )
    return {"usage": asdict(usage)}


if __name__ == "__main__":
    serve()
