"""Builds the wheel of the seed layer: programs that need not be compiled at a first start.

    python tools/build_seed.py --out dist/ zoo/*.onnx tests/models/*.onnx

The programs are those of the models named and of ONNX's test cases of operators, compiled for
levels of x86-64 by the PoCL wheel that is installed. The wheel holds one package, `clinfer_seed`,
which is a cache directory (docs/seed.md). Of the models it has their drafts too, for a machine like
this one. What is built already in --work is not built again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.wheel import WheelBuilder

import clinfer
import seed_programs
from clinfer.cache.content import remember_external
from clinfer.cache.seed import FACTS, PACKAGE
from clinfer.cache.store import Store
from clinfer.config import CPU_TARGETS
from clinfer.device import pocl_binary
from clinfer.device.discover import Device, open_device
from clinfer.device.programs import SourceProgram, build_binaries
from clinfer.errors import BuildError
from clinfer.plugins.compiler import generator_digest, program_record
from clinfer.plugins.seed import IR_ENTRY, ir_program, level_of
from seed_programs import Known, Programs

TARGETS = ("x86-64-v3", "x86-64-v4")
TAG = "py3-none-manylinux_2_17_x86_64"
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "clinfer-seed"
version = "{version}"
description = "Compiled programs for clinfer's first start on the PoCL wheel."
requires-python = ">=3.10"
license = "Apache-2.0"
[tool.hatch.build.targets.wheel]
packages = ["{package}"]
artifacts = ["{package}/**"]
[tool.hatch.build.targets.wheel.hooks.custom]
"""
_HOOK = """\
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class Tag(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["tag"] = "{tag}"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Collects, builds, packs; returns the exit code."""
    options = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="clinfer-seed-") as scratch:
        store = Store(options.work or Path(scratch) / "work")
        entries: dict[str, int] = {}
        own = open_device("CPU")
        level = level_of(own)
        models: list[Known] = []
        for name in options.targets:
            device = open_device("CPU", name)
            wanted = collect(device, options)
            if level is not None and level.name == name:
                models = [seed_programs.known(p, level, own, Path(scratch)) for p in options.models]
                for model in models:
                    wanted |= model.programs
            built = build(device, wanted, store, options.jobs)
            entries |= dict.fromkeys(built, 0)
            print(f"{name}: {len(built)} programs", flush=True)
        facts = {
            "clinfer": clinfer.__version__,
            "generator": generator_digest(),
            "platform": device.info.platform_version,
            "targets": options.targets,
            "programs": len(entries),
            "plans": sum(model.content is not None for model in models),
        }
        wheel = pack(store, sorted(entries), models, facts, Path(scratch) / "wheel", options.out)
    count = f"{len(entries)} programs, {facts['plans']} plans"
    print(f"{wheel}: {count}, {wheel.stat().st_size / 1e6:.2f} MB")
    return 0


def collect(device: Device, options: argparse.Namespace) -> Programs:
    """The programs for a target: of the models and the operators."""
    core = clinfer.Core()
    devices = seed_programs.machines(device.info)
    shared = ir_program()
    found: Programs = {shared.digest: shared}
    if options.operators:
        programs = seed_programs.of_operators(core, options.operators, devices)
        print(f"{device.info.full_name}: operators need {len(programs)} programs", flush=True)
        found |= programs
    for path in options.models:
        programs = seed_programs.of_model(core, path, devices)
        new = programs.keys() - found.keys()
        print(f"{path.stem}: {len(programs)} programs, {len(new)} of them new", flush=True)
        found |= programs
    return found


def build(device: Device, programs: Programs, store: Store, jobs: int) -> list[str]:
    """Builds what the store lacks; the names of all entries. Raises `BuildError`."""
    records = {digest: program_record(p, device) for digest, p in programs.items()}
    missing = [p for digest, p in programs.items() if store.get(records[digest]) is None]
    failures: list[BuildError] = []

    def done(index: int, result: bytes | BuildError, seconds: float) -> None:
        if isinstance(result, BuildError):
            failures.append(result)
            return
        entry = missing[index].entry
        binary = result if entry == IR_ENTRY else pocl_binary.without_ir(result)
        # Not the seconds it took: they would differ from one build to the next.
        store.put(records[missing[index].digest], {"binary": binary})

    sources = [SourceProgram(p.source, p.options, p.entry, p.local_size) for p in missing]
    build_binaries(device, sources, done, jobs)
    for failure in failures:
        raise failure
    return [record.digest for record in records.values()]


def pack(
    store: Store,
    names: list[str],
    models: Sequence[Known],
    facts: dict[str, Any],
    place: Path,
    out: Path,
) -> Path:
    """The wheel of the entries of those names and what is known of models; `place` is a folder."""
    package = place / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Programs for clinfer; docs/seed.md."""\n')
    (package / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    seed = Store(package)
    for name in names:
        entry = seed.folder.entry(name)
        entry.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.folder.entry(name), entry)
    for model in models:
        if model.content is not None:
            seed.put(model.record, model.content)
        remember_external(seed, model.root, model.external)
    project = _PROJECT.format(version=clinfer.__version__, package=PACKAGE)
    (place / "pyproject.toml").write_text(project)
    (place / "hatch_build.py").write_text(_HOOK.format(tag=TAG))
    out.mkdir(parents=True, exist_ok=True)
    (made,) = WheelBuilder(str(place)).build(directory=str(out), versions=["standard"])
    return Path(made)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="ONNX files")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps what is built, to go on")
    parser.add_argument("--operators", type=int, default=400, metavar="N", help="test cases")
    parser.add_argument("--targets", nargs="+", choices=CPU_TARGETS, default=TARGETS)
    parser.add_argument("--jobs", type=int, default=0, help="programs at a time; 0: one per core")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
