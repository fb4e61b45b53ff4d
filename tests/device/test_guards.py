"""The guards that all device tests run under notice what they should."""

from __future__ import annotations

import numpy as np
import pytest

import clinfer
from api.conftest import prepare
from api.made import dense_model
from clinfer.device import queue_instance
from clinfer.device.launch_table import LaunchTable
from guards import GUARD, StrayWriteError


@pytest.mark.parametrize("name", ["CPU", "GPU"])
def test_a_write_beyond_a_tensor_is_noticed(name, monkeypatch):
    """A launch of more work-items than there are rows, as a wrong bound would make it."""
    model = clinfer.Core().compile_model(dense_model(), prepare(name, monkeypatch))
    x = np.ones((4, 24), np.float32)
    model(x)
    bind, fill = queue_instance.bind_launch, LaunchTable.bound

    def one_row_more(step, sizes):
        bound = bind(step, sizes)
        args = tuple((k, v + 1 if (k, v) == ("int", 5) else v) for k, v in bound.args)
        return bound._replace(args=args)

    def one_row_more_of_all(*given):
        bound = fill(*given)
        bound.values[bound.values == 5] += np.uint64(1)
        return bound

    monkeypatch.setattr(queue_instance, "bind_launch", one_row_more)
    monkeypatch.setattr(LaunchTable, "bound", one_row_more_of_all)
    with pytest.raises(StrayWriteError, match="guard bytes"):
        model(np.ones((5, 24), np.float32))
    assert GUARD
