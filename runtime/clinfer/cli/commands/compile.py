"""`clinfer compile`: a compiled model in one file, to be imported elsewhere."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from clinfer.cli import common, pictures, shapes
from clinfer.cli.caches import remembering_arguments
from clinfer.cli.output import emit_json, size_text
from clinfer.errors import DeviceError


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL -o FILE --device --shape."""
    common.model_argument(parser)
    common.device_argument(parser)
    remembering_arguments(parser)
    shapes.shape_argument(parser)
    pictures.arguments(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")


def run(options: argparse.Namespace) -> int:
    """Writes the blob; the file appears whole or not at all."""
    core = common.core(options)
    if "EXPORT_IMPORT" not in core.get_property(options.device, "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError(
            f"{options.device} does not export whole models: use --device CPU, or "
            "'clinfer warm' to fill a cache of program binaries"
        )
    common.check_output("--output", options.output)
    start = time.perf_counter()
    change = (options.shape, pictures.preparation(options))
    model = shapes.reshaped(core, options.model, *change)
    blob = core.compile_model(model, common.one_device(options.device)).export_model()
    assert blob is not None
    _write(options.output, blob)
    seconds = time.perf_counter() - start
    if options.json:
        emit_json({"file": str(options.output), "bytes": len(blob), "seconds": seconds})
    else:
        print(f"wrote {options.output}: {size_text(len(blob))} in {seconds:.1f} s")
    return 0


def _write(path: Path, blob: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with common.writing("--output", path):
        try:
            partial.write_bytes(blob)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
