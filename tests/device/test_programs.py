"""Building programs: serial and in worker processes, errors, crashes, binaries."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from clinfer.device.discover import open_device
from clinfer.device.opencl import cl
from clinfer.device.programs import SourceProgram, build, build_each, load
from clinfer.errors import BuildError

TEXT = """
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void {name}(__global float *x, int n)
{{
    for (int i = 0; i < n; i++)
        x[i] = x[i] * {factor}.0f + 1.0f;
}}
"""


def program(factor: int) -> SourceProgram:
    name = f"scale_{factor}"
    return SourceProgram(TEXT.format(name=name, factor=factor), "", name)


@pytest.fixture(scope="module")
def device():
    os.environ["CLINFER_CPU_PLATFORM"] = "Portable"
    yield open_device("CPU")
    del os.environ["CLINFER_CPU_PLATFORM"]


def run(device, built) -> np.ndarray:
    x = np.arange(5, dtype=np.float32)
    flags = cl().mem_flags.READ_WRITE | cl().mem_flags.COPY_HOST_PTR
    buffer = cl().Buffer(device.context, flags, hostbuf=x)
    kernel = built.kernel()
    kernel.set_arg(0, buffer)
    kernel.set_arg(1, np.int32(5))
    queue = device.new_queue()
    cl().enqueue_nd_range_kernel(queue, kernel, (1,), (1,))
    cl().enqueue_copy(queue, x, buffer)
    return x


@pytest.mark.parametrize("jobs", [1, 2])
def test_programs_come_back_in_order_and_run(device, jobs):
    seen = []
    built = build(device, [program(2), program(3), program(4)], jobs, seen.append)
    for factor, ready in zip((2, 3, 4), built, strict=True):
        np.testing.assert_array_equal(run(device, ready), np.arange(5) * factor + 1)
    assert sorted(seen) == ["scale_2", "scale_3", "scale_4"]


def test_a_binary_loads_and_gives_the_same(device):
    binary = build(device, [program(5)])[0].binary()
    again = load(device, program(5), binary)
    np.testing.assert_array_equal(run(device, again), np.arange(5) * 5 + 1)
    assert again.binary() == binary


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_names_the_kernel_and_shows_log_and_lines(device, jobs):
    broken = SourceProgram("__kernel void broken() {\n  nonsense here;\n}", "", "broken")
    with pytest.raises(BuildError) as caught:
        build(device, [program(2), broken], jobs)
    for word in ("'broken'", "nonsense", "   2   nonsense here;"):
        assert word in str(caught.value)


def test_a_compiler_that_takes_too_long_costs_only_its_program(device):
    slow, quick = build_each(device, [program(6), program(9)], 1, seconds=0.01)
    assert isinstance(slow, BuildError)
    assert re.search("scale_6.*ended after", str(slow))
    del quick


def test_a_binary_of_another_kernel_is_refused(device):
    binary = build(device, [program(7)])[0].binary()
    with pytest.raises(BuildError, match="scale_8"):
        load(device, program(8), binary)


def test_garbage_is_refused_without_a_crash():
    code = (
        "from clinfer.device.discover import open_device\n"
        "from clinfer.device.programs import SourceProgram, load\n"
        "from clinfer.errors import BuildError\n"
        "device = open_device('CPU')\n"
        "for bad in (b'x', b'poclbin' + bytes(100), bytes(5000)):\n"
        "    try:\n"
        "        load(device, SourceProgram('', '', 'k'), bad)\n"
        "    except BuildError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused"] * 3, done.stderr
