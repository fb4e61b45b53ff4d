"""Building programs: serial and in worker processes, errors, crashes, binaries."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from clinfer.device import pocl_binary, workers
from clinfer.device.discover import open_device
from clinfer.device.opencl import cl
from clinfer.device.programs import SourceProgram, build, build_each, load, prepare
from clinfer.device.workers import Pool
from clinfer.errors import BuildError, DeviceError

pytestmark = pytest.mark.usefixtures("own_programs")

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
    kernel.set_arg(1, np.int32(5).tobytes())
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
    for word in ("'broken'", "nonsense", "line 2"):
        assert word in str(caught.value)
    assert "   2   nonsense here;" in caught.value.log


def test_a_compiler_that_takes_too_long_costs_only_its_program(device):
    slow, quick = build_each(device, [program(6), program(9)], 1, seconds=0.01)
    assert isinstance(slow, BuildError)
    assert re.search("scale_6.*ended after", str(slow))
    del quick


def test_workers_make_what_one_process_makes(device):
    sources = [program(factor) for factor in (11, 12, 13)]
    serial = [built.binary() for built in build(device, sources, 1)]
    parallel = [built.binary() for built in build(device, sources, 3)]
    for one, other in zip(serial, parallel, strict=True):
        assert pocl_binary.parse(one).kernels == pocl_binary.parse(other).kernels


def test_a_program_that_does_not_build_costs_the_others_nothing(device):
    broken = SourceProgram("__kernel void broken() { nonsense; }", "", "broken")
    seen = []
    one, two, three = build_each(device, [program(14), broken, program(15)], 2, seen.append)
    assert isinstance(two, BuildError)
    for factor, built in ((14, one), (15, three)):
        np.testing.assert_array_equal(run(device, built), np.arange(5) * factor + 1)
    assert sorted(seen) == ["broken", "scale_14", "scale_15"]


def test_a_worker_that_cannot_have_the_device_says_why():
    pool = Pool({"platform": "No such platform", "device": "none"})
    with pytest.raises(OSError, match="No such platform"):
        pool.build([program(16)], 1, None, 60)


def test_a_worker_that_dies_says_so(device):
    worker = workers.Worker({"platform": device.info.platform, "device": device.info.full_name})
    os.kill(worker._process.pid, signal.SIGKILL)
    error = worker.build(program(18), (1, 1, 1), 60)
    assert isinstance(error, BuildError)
    assert "scale_18" in str(error)
    assert f"code -{int(signal.SIGKILL)}" in str(error)
    assert worker.is_dead


def test_where_no_process_starts_programs_build_here(device, monkeypatch, caplog):
    def no_process(*_args):
        raise OSError("not permitted")

    monkeypatch.setattr(workers, "Worker", no_process)
    pool = Pool({"platform": device.info.platform, "device": device.info.full_name})
    monkeypatch.setattr(workers, "pool_of", lambda _device: pool)
    prepare(device, 2)
    (built,) = build(device, [program(17)])
    np.testing.assert_array_equal(run(device, built), np.arange(5) * 17 + 1)
    np.testing.assert_array_equal(
        run(device, load(device, program(17), built.binary())), np.arange(5) * 17 + 1
    )
    assert "not permitted" in caplog.text


def test_where_files_are_short_nothing_builds_here(device, monkeypatch):
    """PoCL ends the process whose linker cannot be started."""

    def no_process(*_args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(workers, "Worker", no_process)
    pool = Pool({"platform": device.info.platform, "device": device.info.full_name})
    monkeypatch.setattr(workers, "pool_of", lambda _device: pool)
    with pytest.raises(DeviceError, match=r"Too many open files.*ulimit"):
        build(device, [program(17)])


def test_prepared_workers_are_used_and_kept(device):
    pool = Pool({"platform": device.info.platform, "device": device.info.full_name})
    pool.prepare(1)
    (waiting,) = pool._idle
    (made,) = pool.build([program(18)], 1, None, 60)
    assert isinstance(made, bytes)
    assert pool._idle == [waiting]
    pool.close()
    assert pool._idle == []


def test_a_worker_that_is_done_as_a_build_ends_is_not_used_again(device, monkeypatch):
    """Told to end while its last answer is on the way, it would fail the next program."""
    pool = Pool({"platform": device.info.platform, "device": device.info.full_name})
    ended = threading.Event()
    really, abandon = workers.Worker.build, workers.Worker.abandon

    def answered(worker, source, *rest):
        answer = really(worker, source, *rest)
        if source.entry == "scale_20":
            assert ended.wait(60)
        return answer

    def end(worker):
        abandon(worker)
        ended.set()

    def stop(index, _answer, _seconds):
        if index == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(workers.Worker, "build", answered)
    monkeypatch.setattr(workers.Worker, "abandon", end)
    with pytest.raises(KeyboardInterrupt):
        pool.build([program(19), program(20)], 2, None, 60, stop)
    for made in pool.build([program(21), program(22)], 2, None, 60):
        assert isinstance(made, bytes), made
    pool.close()


def test_a_binary_of_another_kernel_is_refused(device):
    binary = build(device, [program(7)])[0].binary()
    with pytest.raises(BuildError, match="scale_8"):
        load(device, program(8), binary)


def test_intels_cpu_runtime_builds_and_loads(monkeypatch):
    monkeypatch.setenv("CLINFER_CPU_PLATFORM", "Intel(R) OpenCL")
    try:
        other = open_device("CPU")
    except DeviceError:
        pytest.skip("Intel's OpenCL CPU runtime is not installed (the extra intel-cpu)")
    source = program(21)
    (built,) = build(other, [source])
    again = load(other, source, built.binary())
    for ready in (built, again):
        np.testing.assert_array_equal(run(other, ready), np.arange(5) * 21 + 1)
    assert "cl_intel_subgroups" in other.target.extensions
    assert other.target.fp16


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
