"""Examples in docs/: run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def run_examples(name: str) -> dict:
    """Runs a page's blocks of Python one after the other, and returns what they have defined."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(), re.M | re.S)
    assert blocks
    found: dict = {"__name__": name}
    for block in blocks:
        exec(compile(block, name, "exec"), found)
    return found
