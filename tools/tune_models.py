"""Writes the tile choices that ship with the kernels: kernels/clinfer_kernels/tuned/*.json.

    python tools/tune_models.py zoo/*.onnx [--device CPU] [--seconds 60]

Tunes each model on the device named, without the choices that ship now, and adds what was found to
the file for that kind of device (class, dialect, vector width). Choices for problems that no model
here has are kept with --add, else dropped. Run it on a quiet machine: the file is for everybody.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

from clinfer import Core
from clinfer.cli import common
from clinfer.cli.output import progress
from clinfer_kernels import tuned

FOLDER = Path(tuned.__file__).parent


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--add", action="store_true", help="keep the choices that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clinfer-tune-") as folder:
        write(options, Core(), folder)


def write(options: argparse.Namespace, core: Core, folder: str) -> None:
    """Tunes each model in a cache that is thrown away, and writes the choices after each."""
    core.set_property({"CACHE_DIR": folder})
    target = core._device(options.device).target
    file = FOLDER / tuned.file_name(target)
    choices = dict(tuned.shipped(target)) if options.add else {}
    names: dict[str, str] = {}
    if options.add and file.is_file():
        names = json.loads(file.read_text())["names"]
    tuned.shipped = lambda _: {}
    for path in options.models:
        model = core.read_model(path)
        beside = path.with_suffix(".npz")
        files = [str(beside)] if beside.is_file() else []
        inputs = common.inputs_for(model.inputs, files)
        found = core.tune(model, options.device, inputs, partial(progress), options.seconds)
        assert found is not None
        print(
            f"{path.stem}: {found.untuned * 1e3:.2f} -> {found.tuned * 1e3:.2f} ms, "
            f"{found.changed} of {len(found.problems)} choices"
        )
        for timing in found.problems:
            if timing.chosen != timing.default:
                choices[timing.digest] = timing.chosen
                names[timing.digest] = f"{timing.name}: {timing.candidates[timing.chosen]}"
        device = core.get_property(options.device, "FULL_DEVICE_NAME")
        document = {
            "device": device,
            "choices": dict(sorted(choices.items())),
            "names": {digest: names[digest] for digest in sorted(choices)},
        }
        file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
