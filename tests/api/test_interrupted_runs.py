"""Ctrl-C in the middle of an inference that would take minutes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cli.conftest import child_environment
from clocks import LIMIT
from platforms import platform

PRODUCTS = """
import os, signal, sys, threading, time
import numpy as np, onnx.parser
import clinfer
device, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
products = "".join(f"v{i + 1} = MatMul(v{i}, w) " for i in range(count))
proto = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]>'
    f"m (float[A, B] v0, float[B, B] w) => (float[A, B] v{count}) {{ {products} }}"
)
request = clinfer.compile_model(proto, device).create_infer_request()
few, many = np.eye(8, dtype=np.float32), np.eye(size, dtype=np.float32)
request.infer([few, few])
timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
timer.daemon = True
timer.start()
try:
    request.infer([many, many])
except KeyboardInterrupt:
    if device == "CPU":  # a queue first has to be done with what is in it
        assert np.array_equal(request.infer([few, few])[0], few)
    print("interrupted")
"""


ENDLESS = """
import os, signal, threading
import numpy as np, onnx.parser
import clinfer
proto = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> m (float[N] x) => (y) <bool go = {1}> { '
    'y = Loop("", go, x) <body = b (int64 i, bool c, float[N] s) => (d, t) '
    "{ d = Identity(c) t = Tanh(s) }> }"
)
request = clinfer.compile_model(proto, "CPU").create_infer_request()
request.start_async([np.ones(4, np.float32)])
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
request.wait()
"""


@pytest.mark.parametrize(("device", "count", "size"), [("CPU", 200, 4096), ("GPU", 100, 1024)])
def test_an_interrupt_ends_an_inference(device: str, count: int, size: int) -> None:
    """With the player, and with a queue; the process ends too, whatever the device is still at."""
    name = platform()
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS, device, str(count), str(size)],
        env=child_environment(CLINFER_CPU_PLATFORM=name, CLINFER_GPU_PLATFORM=name),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_an_interrupt_ends_a_program_whatever_runs_in_the_background() -> None:
    """Nobody is left to see the results of a loop without an end."""
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS],
        env=child_environment(CLINFER_CPU_PLATFORM=platform()),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
