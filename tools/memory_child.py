"""One measurement of memory in a process of its own, for tools/bench_memory.py.

    python tools/memory_child.py RUNTIME [MODEL] [--cache DIR] [--inferences N]

Without a model only the runtime is imported and its device opened. Prints one JSON line: the
process's own peak ('peak') and what is resident at the end ('resident', of which 'anonymous' and
'file', pages of mapped files), in bytes, as Linux counts them in /proc/self/status; then it waits
for its input to end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from bench_child import LOADERS, sample

_FIELDS = {"VmHWM": "peak", "VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file"}


def main() -> None:
    """Imports, loads, runs, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime", choices=LOADERS)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--cache", default="")
    parser.add_argument("--inferences", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.set_defaults(through="path")
    options = parser.parse_args()
    facts: dict[str, Any] = {}
    load = LOADERS[options.runtime](options)
    if options.model is not None:
        inputs = sample(options.model)
        run, facts = load()
        for _ in range(options.inferences):
            run(inputs)
    print(json.dumps({**memory(), **facts}), flush=True)
    sys.stdin.read()


def memory() -> dict[str, int]:
    """This process's peak and resident memory in bytes."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in _FIELDS:
            found[_FIELDS[name]] = int(rest.split()[0]) * 1024
    return found


if __name__ == "__main__":
    main()
