"""A build worker's process; `clinfer.device.workers` starts it and says what to build."""

from __future__ import annotations

import json
import os
import sys

from clinfer.device.discover import open_context
from clinfer.device.programs import SourceProgram, compile_source, final_binary
from clinfer.device.workers import read_frame, write_frame
from clinfer.errors import ClinferError


def main() -> None:
    """Serves jobs until its input ends."""
    # Drivers may print to stdout; answers go to a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs = sys.stdin.buffer
    first = read_frame(jobs)
    if first is None:
        return
    place = json.loads(first)
    context = open_context(place["platform"], place["device"])
    while (job := read_frame(jobs)) is not None:
        fields = json.loads(job)
        source = SourceProgram(**{**fields, "local_size": tuple(fields["local_size"])})
        try:
            program = compile_source(context, source)
            write_frame(answers, b"B" + final_binary(program, source.local_size))
        except ClinferError as error:
            write_frame(answers, b"E" + str(error).encode())


if __name__ == "__main__":
    main()
