"""`clinfer compile`: a compiled model in one file, to be imported elsewhere."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from clinfer.cli import common
from clinfer.cli.output import emit_json, size_text
from clinfer.errors import ClinferError, DeviceError

HELP = "compile a model into a file that import_model reads without compiling"


def arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL -o FILE --device --shape."""
    common.model_argument(parser)
    common.device_argument(parser)
    common.shape_argument(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")


def run(options: argparse.Namespace) -> int:
    """Writes the blob; the file appears whole or not at all."""
    core = common.core(options)
    if "EXPORT_IMPORT" not in core.get_property(options.device, "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError(
            f"{options.device} does not export whole models: use --device CPU, or "
            "'clinfer warm' to fill a cache of program binaries"
        )
    _check(options.output)
    start = time.perf_counter()
    model = common.reshaped(core, options.model, options.shape)
    blob = core.compile_model(model, options.device).export_model()
    assert blob is not None
    _write(options.output, blob)
    seconds = time.perf_counter() - start
    if options.json:
        emit_json({"file": str(options.output), "bytes": len(blob), "seconds": seconds})
    else:
        print(f"wrote {options.output}: {size_text(len(blob))} in {seconds:.1f} s")
    return 0


def _check(path: Path) -> None:
    """Raises `ClinferError` where no file can come to be, before anything is compiled."""
    if path.is_dir() or not path.name:
        raise ClinferError(f"--output {path}: is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ClinferError(f"--output {path}: the folder '{path.parent}' does not exist")


def _write(path: Path, blob: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with common.writing("--output", path):
        try:
            partial.write_bytes(blob)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
