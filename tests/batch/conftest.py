"""Models and tables for batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api.conftest import prepare
from api.made import dense_model, save


@pytest.fixture
def cpu(monkeypatch) -> str:
    return prepare("CPU", monkeypatch)


@pytest.fixture
def dense(tmp_path: Path, cpu) -> Path:
    """relu(x @ w + b), x of 24 numbers a row: `api.made.dense_answer` is what it gives."""
    return save(dense_model(), tmp_path / "dense.onnx")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((100, 24)).astype(np.float32)
