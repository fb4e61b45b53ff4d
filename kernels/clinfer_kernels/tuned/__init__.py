"""Measured tile choices that ship with the kernels, as data.

A file per kind of device, `CLASS-DIALECT-WIDTH.json`, maps the digest of a problem (see
`clinfer.lowering.choose`) to the index of the candidate that was the fastest. The files are written
by `tools/tune_models.py`. Data of kernels that have changed since are not found, and do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from clinfer_kernels.spec import Target


def file_name(target: Target) -> str:
    """'cpu-pocl-16.json' for PoCL with 16 float32 lanes."""
    return f"{target.cls}-{target.dialect}-{target.vector_width}.json"


def shipped(target: Target) -> Mapping[str, int]:
    """The choices for a kind of device, by the digest of the problem; empty where none ship."""
    return _read(file_name(target))


@lru_cache(maxsize=8)
def _read(name: str) -> Mapping[str, int]:
    file = Path(__file__).parent / name
    if not file.is_file():
        return {}
    choices: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))["choices"]
    return choices
