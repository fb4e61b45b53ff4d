"""Writes the sources generated for the example model, per device class, into kernels/generated/.

    python tools/generate_kernels.py           writes them
    python tools/generate_kernels.py --check   says which differ; exit code 1 if any does

They are kept in git: a reader sees what lowering makes, and a review sees what a change does to it.
Needs no device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clinfer.graph.reader import read
from clinfer.lowering.choose import KernelChoice
from clinfer.lowering.lower import lower
from clinfer.lowering.plan import LaunchStep
from clinfer.passes.pipeline import optimise
from clinfer_kernels.spec import Target

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "digits.onnx"
FOLDER = ROOT / "kernels" / "generated"
TARGETS = {"cpu": Target(cls="cpu"), "gpu": Target(cls="gpu", vector_width=4, dialect="generic")}


def generated(name: str) -> dict[str, str]:
    """File name -> text for one device class: each program, and the plan's launches."""
    graph = read(MODEL).graph()
    optimise(graph, cls=name)
    plan = lower(graph, TARGETS[name], KernelChoice()).plan
    files = {f"{p.entry}-{p.digest[:8]}.cl": p.source for p in plan.programs}
    lines = [f"The launches of examples/digits.onnx on a device of class '{name}', in order.", ""]
    for number, step in enumerate(plan.steps):
        if isinstance(step, LaunchStep):
            program = plan.programs[step.program]
            shape = " x ".join(_size(d) for d in step.global_size)
            groups = " x ".join(map(str, step.local_size))
            lines.append(f"{number:2}  {program.entry}-{program.digest[:8]}  {step.label}")
            lines.append(f"      {shape} work-items in groups of {groups}")
        else:
            lines.append(f"{number:2}  host: {step.label}: {step.reason}")
    files["plan.txt"] = "\n".join(lines) + "\n"
    return files


def _size(dim: object) -> str:
    """A size as text; a long expression over the model's symbols is left out."""
    text = str(dim)
    return text if len(text) <= 24 else "(as sizes say)"


def main() -> int:
    """Writes or compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    different = [path for name in TARGETS for path in update(name, options.check)]
    for path in different:
        print(f"{'differs' if options.check else 'wrote'}: {path.relative_to(ROOT)}")
    return 1 if options.check and different else 0


def update(name: str, check: bool) -> list[Path]:
    """The files of a device class that are not as generated; written unless `check`."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / file: text for file, text in generated(name).items()}
    different = [p for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
    stale = [p for p in folder.iterdir() if p not in wanted]
    if not check:
        for path in different:
            path.write_text(wanted[path])
        for path in stale:
            path.unlink()
    return [*different, *stale]


if __name__ == "__main__":
    sys.exit(main())
