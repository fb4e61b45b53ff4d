"""tools/check_races.py: what it reads in Oclgrind's log, and that it finds a race."""

from __future__ import annotations

import subprocess
import sys

import pytest

import check_races

LOG = """
Read-write data race at local memory address 0x1000000000000
\tKernel: broken
\tFirst entity:  Global(3,0,0) Local(3,0,0) Group(0,0,0)
\tAt line 6 of input.cl:
\t  b[get_local_id(0)] = t[63 - get_local_id(0)];

Read-write data race at local memory address 0x1000000000000
\tKernel: broken
\tAt line 6 of input.cl:
"""
RACE = """
import numpy as np, pyopencl as cl
device = cl.get_platforms()[0].get_devices()[0]
context = cl.Context([device]); queue = cl.CommandQueue(context)
text = '''__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void broken(__global float* b) {
    __local float t[64];
    t[get_local_id(0)] = b[get_local_id(0)];
    b[get_local_id(0)] = t[63 - get_local_id(0)];
}'''
buffer = cl.Buffer(context, cl.mem_flags.COPY_HOST_PTR, hostbuf=np.ones(64, np.float32))
kernel = cl.Kernel(cl.Program(context, text).build(), "broken")
kernel.set_args(buffer)
cl.enqueue_nd_range_kernel(queue, kernel, (64,), (64,)); queue.finish()
"""


def test_a_message_is_told_once_with_kernel_and_line():
    (message,) = check_races.messages(LOG)
    assert message.startswith("Read-write data race at local memory")
    assert "broken" in message
    assert "At line 6" in message


def test_nothing_is_found_in_an_empty_log():
    assert check_races.messages("") == check_races.messages("\n\n") == []


def test_without_oclgrind_it_is_skipped_and_said(monkeypatch, capsys):
    monkeypatch.setattr(check_races, "library", lambda: None)
    assert check_races.main(["--sample", "1"]) == 0
    assert "skipped: oclgrind not found" in capsys.readouterr().out


def test_oclgrind_finds_a_missing_barrier(tmp_path):
    library = check_races.library()
    if library is None:
        pytest.skip("oclgrind not found")
    environment = check_races.surroundings(library, tmp_path)
    subprocess.run([sys.executable, "-c", RACE], env=environment, check=True)
    assert any("race" in line for line in check_races.messages((tmp_path / "log").read_text()))


def test_a_product_on_oclgrind(capsys):
    if check_races.library() is None:
        pytest.skip("oclgrind not found")
    assert check_races.main(["--case", "test_softmax_example"]) == 0
    assert "1 of 1 cases run" in capsys.readouterr().out
