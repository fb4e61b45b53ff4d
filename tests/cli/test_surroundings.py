"""Odd surroundings of a command: closed streams, full disks, ignored signals, no linker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from cli.conftest import child, child_environment

CLINFER = f"{sys.executable} -m clinfer"
needs_proc = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@pytest.fixture
def warm(two_inputs, cache) -> Path:
    """A cache that has the model `two_inputs`."""
    done = child("run", two_inputs, "--device", "CPU", "--cache-dir", cache)
    assert done.returncode == 0, done.stderr
    return cache


def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of the shell; `clinfer` in it is the command."""
    text = line.replace("clinfer", CLINFER, 1)
    options = {"capture_output": True, "text": True, "check": False, "timeout": 300}
    return subprocess.run(["bash", "-c", text], env=child_environment(**more), **options)


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(two_inputs, warm, tmp_path, closed):
    out = tmp_path / "out"
    command = f"clinfer run {two_inputs} --device CPU --cache-dir {warm} --output {out}"
    done = shell(f"{command} {closed}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert np.load(out / "sum.npy").shape == (1, 3)


def test_a_failure_with_closed_streams_is_quiet():
    done = shell("clinfer run absent.onnx >&- 2>&-")
    assert (done.returncode, done.stderr) == (1, "")


@needs_proc
def test_a_full_disk_is_one_line(two_inputs, warm):
    done = shell(f"clinfer run {two_inputs} --device CPU --cache-dir {warm} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "clinfer: No space left on device\n")


def test_a_reader_that_goes_is_no_failure_to_report(two_inputs):
    done = shell(f"clinfer explain {two_inputs} --phase read | true")
    assert done.stderr == ""


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("clinfer run 'é\u4e2d.onnx'", **ascii_only)
    assert done.returncode == 1
    assert done.stderr.startswith("clinfer: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_model_of_any_name_runs_in_any_locale(two_inputs, warm, tmp_path):
    odd = tmp_path / "é\u4e2d.onnx"
    odd.write_bytes(two_inputs.read_bytes())
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(f"clinfer run {odd} --device CPU --cache-dir {warm}", **ascii_only)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", ["-O", "-I"])
def test_other_ways_to_start_python(two_inputs, warm, flags):
    paths = child_environment()["PYTHONPATH"].split(os.pathsep)
    code = f"import sys; sys.path[:0] = {paths}; from clinfer.cli import main; sys.exit(main())"
    command = [sys.executable, flags, "-c", code, "run", str(two_inputs), "--device", "CPU"]
    command += ["--cache-dir", str(warm)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_no_home_and_no_folder_for_temporary_files(two_inputs, warm):
    gone = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    done = shell(f"clinfer run {two_inputs} --device CPU --cache-dir {warm}", **gone)
    assert done.returncode == 0, done.stderr


COLD = """import signal, sys
{first}
import numpy as np, clinfer
model = clinfer.Core().compile_model(sys.argv[1], "CPU")
print(model([np.ones((2, 3), np.float32)] * 2)["sum"].sum())
"""


@pytest.mark.parametrize(
    "first",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "import os; os.environ['PATH'] = '/nonexistent'",
    ],
    ids=["SIGCHLD ignored", "no linker on PATH"],
)
def test_what_pocls_linker_needs_is_seen_to(two_inputs, first):
    command = [sys.executable, "-c", COLD.format(first=first), str(two_inputs)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=child_environment()
    )
    assert done.stdout == "12.0\n", done.stderr


def test_a_machine_without_the_linker_says_what_to_install(two_inputs):
    first = "import os; os.defpath = ''; os.environ['PATH'] = '/nonexistent'"
    command = [sys.executable, "-c", COLD.format(first=first), str(two_inputs)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=child_environment()
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("clinfer.errors.BuildError: kernel '")
    assert "install binutils" in last


def test_sigterm_ends_a_build_and_leaves_nothing(tmp_path):
    """A model of many kernels; what the command has started ends with it."""
    model = _many_kernels(tmp_path / "many.onnx")
    drivers = tmp_path / "drivers"
    drivers.mkdir()
    out = tmp_path / "many.blob"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "clinfer",
            "compile",
            model,
            "--device",
            "CPU",
            "--no-cache",
            "-o",
            out,
        ],
        env=child_environment(CLINFER_COMPILE_JOBS="1", TMPDIR=str(drivers)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not _others(process.pid):
        time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (143, "")
    while _others(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _others(process.pid)
    assert not out.exists()


def test_a_second_ctrl_c_ends_it_too(tmp_path):
    model = _many_kernels(tmp_path / "many.onnx")
    process = subprocess.Popen(
        [sys.executable, "-m", "clinfer", "run", model, "--device", "CPU", "--no-cache"],
        env=child_environment(CLINFER_COMPILE_JOBS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not _others(process.pid):
        time.sleep(0.02)
    for _ in range(2):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)
    _, said = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT), said
    assert "Traceback" not in said


def _others(session: int) -> list[int]:
    """The processes of a session besides its first that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and int(folder.name) != session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def _many_kernels(path: Path) -> Path:
    """Reductions and softmaxes, each a program of its own."""
    from onnx import TensorProto, helper

    kinds = ("Max", "Min", "Prod", "L1", "L2", "LogSum", "SumSquare", "Mean")
    nodes = [helper.make_node(f"Reduce{k}", ["x"], [k], keepdims=0) for k in kinds]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])
    outputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, []) for k in kinds]
    graph = helper.make_graph(nodes, "many", [x], outputs)
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def test_a_model_that_is_not_warmed_is_a_line_on_stderr(clinfer, tmp_path):
    done = clinfer("warm", tmp_path / "absent.onnx", "--cache-dir", tmp_path / "c")
    done.fails_with("absent.onnx", "does not exist")


def test_an_openvino_model_is_called_one(clinfer, tmp_path):
    (tmp_path / "model.xml").write_text("<net name='x' version='11'/>")
    clinfer("run", tmp_path / "model.xml").fails_with("OpenVINO", "ONNX")


def test_arrays_that_are_no_inputs_are_named(clinfer, two_inputs, warm, tmp_path):
    np.savez(tmp_path / "odd.npz", foo=np.zeros(3))
    arguments = ("--device", "CPU", "--cache-dir", warm, "--input", tmp_path / "odd.npz")
    clinfer("run", two_inputs, *arguments).fails_with("holds foo", "no value for input 'a', 'b'")


def test_a_platform_that_is_not_there_is_named(clinfer, monkeypatch):
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", "Nope")
    clinfer("devices").fails_with("CLINFER_GPU_PLATFORM='Nope'", "there are")
