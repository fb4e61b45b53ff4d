"""Writes the tile choices that ship with the kernels: kernels/clinfer_kernels/tuned/*.json.

    python tools/tune_models.py zoo/*.onnx [--device CPU] [--seconds 60]

Tunes each model on the device named, without the choices that ship now, and adds what was found to
the file for that kind of device (class, dialect, vector width), for all devices of the class, for
its vendor's or for this device (--scope). Choices for problems that no model here has are kept with
--add, else dropped. Run it on a quiet machine: the file is for everybody.
"""

from __future__ import annotations

import argparse
import ast
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinfer import Core
from clinfer.cli import common
from clinfer.cli.output import progress
from clinfer_kernels import tuned


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--add", action="store_true", help="keep the choices that are there")
    scopes = ("class", "vendor", "device")
    parser.add_argument("--scope", choices=scopes, default="class", help="whom they are for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clinfer-tune-") as folder:
        write(options, Core(), folder)


def write(options: argparse.Namespace, core: Core, folder: str) -> None:
    """Tunes each model in a cache that is thrown away, and writes the choices after each."""
    core.set_property({"CACHE_DIR": folder})
    target = core._device(options.device).target
    file = tuned.FOLDER / tuned.file_name(target)
    tables = tuned.tables_of(file.name)
    vendor = target.vendor if options.scope != "class" else ""
    device = target.architecture if options.scope == "device" else ""
    others = [table for table in tables if (table.vendor, table.device) != (vendor, device)]
    same = [table for table in tables if table not in others]
    rows = {name: row for table in same for name, row in table.rows.items()} if options.add else {}
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
                rows[timing.name] = row_from(timing.candidates[timing.chosen])
        name = core.get_property(options.device, "FULL_DEVICE_NAME")
        write_tables(file, [*others, tuned.Table(vendor, device, name, rows)])


def row_from(text: str) -> dict[str, Any]:
    """The row of a tile as Python prints it: 'CpuTile(rows=8, vecs=2)'."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return {"tile": ast.unparse(call.func), **json.loads(json.dumps(values))}


def write_tables(file: Path, tables: Sequence[tuned.Table]) -> None:
    """The file, a row a line, so that a change of one is a change of a line."""
    texts = []
    for table in sorted(tables, key=lambda table: table.rank):
        lines = (f"   {json.dumps(n)}: {json.dumps(table.rows[n])}" for n in sorted(table.rows))
        head = "".join(
            f"  {json.dumps(field)}: {json.dumps(getattr(table, field))},\n"
            for field in ("vendor", "device", "measured_on")
        )
        texts.append(f' {{\n{head}  "rows": {{\n' + ",\n".join(lines) + "\n  }\n }")
    file.write_text("[\n" + ",\n".join(texts) + "\n]\n")


if __name__ == "__main__":
    main()
