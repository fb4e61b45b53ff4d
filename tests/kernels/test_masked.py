"""The first lanes of vectors: what is left out is neither read nor written."""

from __future__ import annotations

import numpy as np
import pyopencl as cl
import pytest
from harness import TARGETS, program, run_kernel, session

from clinfer.device.processor import instruction_set
from clinfer_kernels import memory, pointwise
from clinfer_kernels.expr import identity
from clinfer_kernels.masked import helper
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


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int8"])
def test_any_number_of_lanes(dtype: str) -> None:
    """Less than none and more than all, too, as items meet whose vectors lie behind the end."""
    kind = {"float32": "float", "int32": "int", "uint8": "uchar", "int8": "char"}[dtype]
    names = [f"{action}_part_{dtype}x16" for action in ("load", "store")]
    text = "\n".join(helper(name, HERE) or memory.helper(name, HERE) or "" for name in names)
    text += f"""
    __kernel void copy(__global const {kind} *x, __global {kind} *y, int n)
    {{
        store_part_{dtype}x16(load_part_{dtype}x16(x, 1, n), y, 1, n);
    }}"""
    opencl = session()
    copy = cl.Kernel(program(text), "copy")
    x = (RNG.standard_normal(48) * 50).astype(dtype)
    flags = cl.mem_flags.COPY_HOST_PTR
    for n in (-(2**31), -33, -16, -1, 0, 1, 7, 15, 16):
        y = np.full(48, 7, dtype)
        given, taken = (cl.Buffer(opencl.context, flags, hostbuf=a) for a in (x, y))
        copy(opencl.queue, (1,), (1,), given, taken, np.int32(n))
        cl.enqueue_copy(opencl.queue, y, taken)
        count = max(n, 0)
        np.testing.assert_array_equal(y[:count], x[:count])
        np.testing.assert_array_equal(y[count:], 7)
