"""The first lanes of vectors: what is left out is neither read nor written."""

from __future__ import annotations

import numpy as np
import pytest
from harness import TARGETS, run_kernel

from clinfer.device.processor import instruction_set
from clinfer_kernels import pointwise
from clinfer_kernels.expr import identity
from clinfer_kernels.spec import Tensor, dense
from clinfer_kernels.specs import PointwiseSpec

HERE = TARGETS["cpu"]._replace(architecture=f"skx/{instruction_set()}")
RNG = np.random.default_rng(2)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int8"])
def test_rows_that_end_within_a_vector(dtype: str) -> None:
    rows, columns = 3, 21
    for width in (1, 5, 16, 19):
        x = (RNG.standard_normal((rows, columns)) * 50).astype(dtype)
        view = Tensor(dtype, (rows, width), (columns, 1))
        spec = PointwiseSpec(identity(dtype), (view,), (dense(dtype, (rows, width)),))
        for tile in pointwise.candidates(spec, HERE):
            kernel = pointwise.emit(spec, tile, HERE)
            (found,) = run_kernel(kernel, [x], [((rows, width), dtype)])
            np.testing.assert_array_equal(found, x[:, :width])
