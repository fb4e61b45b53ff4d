"""The table of promises in docs/cache.md names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
TABLE = TESTS.parent / "docs" / "cache.md"


def test_every_promise_has_its_test() -> None:
    named = re.findall(r"\b((?:api|cache|device)/test_\w+\.py)(?:::(test_\w+))?", TABLE.read_text())
    assert len(named) > 40
    missing = [f"{file}::{test}" for file, test in named if not _is_there(TESTS / file, test)]
    assert not missing


def _is_there(file: Path, test: str) -> bool:
    if not file.is_file():
        return False
    functions = [
        n.name for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)
    ]
    return not test or test in functions
