"""The commands as users meet them: what they print, which files they write, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import clinfer as api
from cli.conftest import DIGITS, F, child, child_environment, rows, save
from platforms import platform

S = TensorProto.STRING


# -- the command line itself ---------------------------------------------------------------------


def test_version_and_help(clinfer):
    assert clinfer("--version").out.strip() == f"clinfer {api.__version__}"
    assert "explain" in clinfer("--help").out


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["run"], ["explain", "m.onnx", "--phas", "fold"], ["compile", "m.onnx"]],
)
def test_wrong_usage_is_exit_code_2_with_a_hint(clinfer, arguments):
    done = clinfer(*arguments)
    assert done.code == 2
    assert "usage: clinfer" in done.err


def test_python_m_clinfer_lists_devices():
    done = child("devices", "--json")
    assert done.returncode == 0, done.stderr
    assert any(row["device"].startswith("CPU") for row in json.loads(done.stdout))


def test_devices_prints_a_table(clinfer):
    done = clinfer("devices")
    assert done.code == 0
    assert done.out.splitlines()[0].split()[:3] == ["device", "name", "platform"]
    assert "EXPORT_IMPORT" in done.out


def test_a_reader_that_closes_the_pipe_is_no_error():
    command = f"{sys.executable} -m clinfer explain {DIGITS} --device CPU --phase fold | head -n 1"
    done = subprocess.run(
        command, shell=True, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("graph")
    assert done.stderr == ""


def test_a_full_disk_below_stdout_is_told_in_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = child("devices", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "clinfer: No space left on device\n"


@pytest.mark.parametrize("command", ["run", "explain", "bench"])
def test_models_and_devices_that_are_not_there(clinfer, tmp_path, command):
    clinfer(command, tmp_path / "absent.onnx", "--device", "CPU").fails_with(
        "absent.onnx", "does not exist"
    )
    clinfer(command, DIGITS, "--device", "TPU").fails_with("TPU", "CPU")


def test_a_shape_for_an_input_that_is_not_there(clinfer):
    done = clinfer("run", DIGITS, "--device", "CPU", "--shape", "picture=1x1x8x8")
    done.fails_with("picture", "image")
    assert clinfer("run", DIGITS, "--shape", "picture").code == 2


# -- run -----------------------------------------------------------------------------------------


def test_run_digits_predicts_and_counts_what_is_right(clinfer, cache):
    done = clinfer("run", DIGITS, "--device", "CPU", "--cache-dir", cache)
    assert done.code == 0, done.err
    assert "predictions: 6 6 6 2" in done.out
    accuracy = done.out.partition("accuracy: ")[2].split("%")[0]
    assert float(accuracy) >= 95
    report = json.loads(clinfer("run", DIGITS, "--device", "CPU", "--json").out)
    assert report["accuracy"] >= 0.95
    assert len(report["predictions"]) == 100
    assert report["outputs"][0]["type"] == "float32[100, 10]"


def test_run_writes_outputs_that_numpy_reads(clinfer, two_inputs, tmp_path):
    np.save(tmp_path / "a.npy", rows())
    np.savez(tmp_path / "b.npz", b=rows() * 2, other=rows())
    done = clinfer(
        "run", two_inputs, "--device", "CPU", "--output", tmp_path / "new" / "folder",
        "--input", f"a={tmp_path / 'a.npy'}", "--input", tmp_path / "b.npz",
    )  # fmt: skip
    assert done.code == 0, done.err
    written = tmp_path / "new" / "folder" / "sum.npy"
    assert f"wrote {written}" in done.out
    np.testing.assert_array_equal(np.load(written), rows() * 3)


def test_run_takes_one_array_out_of_an_npz_file(clinfer, two_inputs, tmp_path):
    np.savez(tmp_path / "ab.npz", a=rows(), x=rows() * 5)
    np.savez(tmp_path / "only.npz", anything=rows() * 4)
    for b, factor in (("only.npz", 5), ("ab.npz", None)):
        done = clinfer(
            "run", two_inputs, "--device", "CPU", "--output", tmp_path / "out",
            "--input", f"a={tmp_path / 'ab.npz'}", "--input", f"b={tmp_path / b}",
        )  # fmt: skip
        if factor is None:
            done.fails_with("no array 'b'", "a, x")
        else:
            np.testing.assert_array_equal(np.load(tmp_path / "out" / "sum.npy"), rows() * factor)


def test_run_without_files_takes_random_values(clinfer, two_inputs):
    done = clinfer("run", two_inputs, "--device", "CPU", "--shape", "a=2x3", "--shape", "b=2x3")
    assert done.code == 0, done.err
    assert "random values" in done.out
    assert "float32[2, 3]" in done.out


def test_run_names_the_input_that_is_wrong(clinfer, two_inputs, tmp_path):
    np.save(tmp_path / "ok.npy", rows())
    np.save(tmp_path / "long.npy", rows().astype(np.complex128))
    np.save(tmp_path / "wide.npy", np.zeros((2, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "cut.npz", b=rows(1000))
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-20])
    (tmp_path / "bad.npz").write_bytes(content[:900] + b"\0\1\2" + content[903:])
    given = ["run", two_inputs, "--device", "CPU", "--input", f"a={tmp_path / 'ok.npy'}"]
    for argument, words in {
        f"z={tmp_path / 'ok.npy'}": ("no input 'z'", "a, b"),
        f"b={tmp_path / 'absent.npy'}": ("absent.npy", "does not exist"),
        f"b={tmp_path}": ("--input b=", "directory"),
        "b=": ("--input b=",),
        f"b={tmp_path / 'text.npy'}": ("text.npy", "is not .npy or .npz"),
        f"b={tmp_path / 'objects.npy'}": ("objects.npy",),
        f"b={tmp_path / 'cut.npz'}": ("cut.npz", "is not .npy or .npz"),
        f"b={tmp_path / 'bad.npz'}": ("bad.npz", "is not .npy or .npz"),
        f"b={tmp_path / 'long.npy'}": ("'b'", "complex128", "float32"),
        f"b={tmp_path / 'wide.npy'}": ("'b'", "[2, 4]", "[n, 3]"),
        f"{tmp_path / 'ok.npy'}": ("say which input", "a, b"),
    }.items():
        clinfer(*given, "--input", argument).fails_with(*words)
    clinfer(*given).fails_with("no value for input 'b'")
    np.save(tmp_path / "three.npy", rows(3))
    clinfer(*given, "--input", f"b={tmp_path / 'three.npy'}").fails_with("n")


def test_run_says_why_outputs_cannot_be_written(clinfer, two_inputs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    given = ["run", two_inputs, "--device", "CPU", "--output"]
    clinfer(*given, tmp_path / "file").fails_with("--output", "cannot be written", "exists")
    clinfer(*given, "/proc/nothing").fails_with("--output", "cannot be written")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sum.npy").symlink_to("/dev/full")
    clinfer(*given, tmp_path / "out").fails_with("--output", "No space left")


def test_run_writes_strings_sequences_and_names_that_are_no_file_names(clinfer, tmp_path):
    nodes = [
        helper.make_node("StringConcat", ["s", "s"], ["a/b"]),
        helper.make_node("StringConcat", ["a/b", "s"], ["a_b"]),
        helper.make_node("SplitToSequence", ["x"], [".."], axis=0),
    ]
    floats = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
    model = save(
        tmp_path / "odd.onnx", nodes, {"s": (S, [2]), "x": (F, [2, 3])},
        {"a/b": (S, [2]), "a_b": (S, [2]), "..": floats}, opset=20,
    )  # fmt: skip
    np.save(tmp_path / "x.npy", rows())
    np.save(tmp_path / "s.npy", np.array(["p", "q"]))
    done = clinfer(
        "run", model, "--device", "CPU", "--json", "--output", tmp_path / "out",
        "--input", f"x={tmp_path / 'x.npy'}", "--input", f"s={tmp_path / 's.npy'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = [np.load(file) for file in json.loads(done.out)["files"]]
    assert found[0].tolist() == ["pp", "qq"]
    assert found[1].tolist() == ["ppp", "qqq"]
    np.testing.assert_array_equal(found[2]["1"], rows()[1:])


def test_run_json_has_no_nan(clinfer, two_inputs, tmp_path):
    np.save(tmp_path / "a.npy", rows() * np.float32(np.nan))
    given = ["--input", f"a={tmp_path / 'a.npy'}", "--input", f"b={tmp_path / 'a.npy'}"]
    done = clinfer("run", two_inputs, "--device", "CPU", "--json", *given)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(done.out, parse_constant=refuse)["outputs"][0]["mean"] is None


# -- compile -------------------------------------------------------------------------------------


def test_compile_writes_a_file_that_is_imported(clinfer, two_inputs, tmp_path):
    done = clinfer("compile", two_inputs, "--device", "CPU", "-o", tmp_path / "m.blob", "--json")
    assert done.code == 0, done.err
    blob = (tmp_path / "m.blob").read_bytes()
    assert json.loads(done.out)["bytes"] == len(blob)
    model = api.Core().import_model(blob, "CPU")
    assert model.programs_built == 0
    np.testing.assert_array_equal(model({"a": rows(), "b": rows()})["sum"], rows() * 2)


def test_compile_that_cannot_write_says_why_and_leaves_nothing(clinfer, two_inputs, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    given = ["compile", two_inputs, "--device", "CPU", "-o"]
    clinfer(*given, folder).fails_with("--output", "is a folder")
    clinfer(*given, folder / "absent" / "m.blob").fails_with("does not exist")
    clinfer(*given, "/proc/m.blob").fails_with("/proc/m.blob", "cannot be written")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    clinfer("compile", broken, "--device", "CPU", "-o", folder / "m").fails_with("broken.onnx")
    assert list(folder.iterdir()) == []


def test_compile_on_a_full_disk_keeps_the_file_that_was_there(two_inputs, tmp_path):
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "m.blob"
    file.write_text("before")
    code = (
        "import resource, signal, sys\n"
        "from clinfer.cli import main\n"
        "from clinfer.cli.commands import compile\n"
        "write = compile._write\n"
        "def limited(path, blob):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "    write(path, blob)\n"
        "compile._write = limited\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = ["compile", str(two_inputs), "--device", "CPU", "-o", str(file)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"clinfer: --output {file}: cannot be written: File too large")
    assert [(p.name, p.read_text()) for p in file.parent.iterdir()] == [("m.blob", "before")]


def test_compile_for_a_gpu_says_what_to_do_instead(clinfer, two_inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())
    done = clinfer("compile", two_inputs, "--device", "GPU", "-o", tmp_path / "m")
    done.fails_with("GPU", "--device CPU", "clinfer warm")


# -- explain -------------------------------------------------------------------------------------


def test_explain_lists_kernels_and_what_is_fused_into_them(clinfer):
    done = clinfer("explain", DIGITS, "--device", "CPU")
    assert done.code == 0, done.err
    depthwise = next(line for line in done.out.splitlines() if "depthwise" in line)
    assert "add, neg, exp, add, reciprocal, mul" in depthwise
    assert "8 launches of" in done.out
    document = json.loads(clinfer("explain", DIGITS, "--device", "CPU", "--json").out)
    assert document["totals"]["launches"] == len(document["steps"]) == 8
    assert document["totals"]["fused"] == 5
    assert document["host_steps"] == []


def test_explain_tells_the_memory_once_shapes_are_known(clinfer):
    without = json.loads(clinfer("explain", DIGITS, "--device", "CPU", "--json").out)
    assert without["memory"] is None
    shape = ("--shape", "image=1x1x8x8")
    found = json.loads(clinfer("explain", DIGITS, "--device", "CPU", *shape, "--json").out)
    memory = found["memory"]
    assert memory["arena"] >= memory["alive"] >= memory["scratch"] >= 0
    assert memory["weights"] == found["totals"]["weight_bytes"] > 0
    assert "alive at once" in clinfer("explain", DIGITS, "--device", "CPU", *shape).out


def test_explain_gives_the_reason_of_host_steps(clinfer, hosted):
    done = clinfer("explain", hosted, "--device", "CPU")
    assert 'host step: Unique "distinct": ' in done.out
    assert "1 host steps" in done.out
    step = json.loads(clinfer("explain", hosted, "--device", "CPU", "--json").out)["host_steps"][0]
    assert step["computes"] == 'Unique "distinct"'
    assert step["reason"]


def test_explain_prints_a_kernels_source(clinfer):
    steps = json.loads(clinfer("explain", DIGITS, "--device", "CPU", "--json").out)["steps"]
    name = steps[1]["kernel"]
    done = clinfer("explain", DIGITS, "--device", "CPU", "--source", name)
    assert "__kernel" in done.out
    assert f"void {name}(" in done.out
    again = json.loads(
        clinfer("explain", DIGITS, "--device", "CPU", "--source", name, "--json").out
    )
    assert again[0]["source"] in done.out
    clinfer("explain", DIGITS, "--device", "CPU", "--source", "nope").fails_with("nope", name)


def test_explain_prints_the_graph_after_a_phase(clinfer):
    for phase, words in {
        "read": ("Gemm(", "MaxPool("),
        "canonicalise": ("MatMul(", "ReduceMean("),
        "layout": ("clinfer.Conv(", "[batch, 8, 8, 16]"),
        "fuse": ("epilogue: %2 = add %0 %1",),
    }.items():
        out = clinfer("explain", DIGITS, "--device", "CPU", "--phase", phase).out
        assert all(word in out for word in words), out
    document = json.loads(clinfer("explain", DIGITS, "--phase", "fuse", "--json").out)
    assert document["phase"] == "fuse"
    clinfer("explain", DIGITS, "--phase", "nope").fails_with("nope", "canonicalise")


# -- machines without OpenCL ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["an error", "an empty list"])
def test_without_an_opencl_platform_it_says_what_to_install(clinfer, monkeypatch, how):
    from clinfer.device import binding

    def platforms() -> list:
        if how == "an error":
            raise binding.Error("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")
        return []

    monkeypatch.setattr(binding, "get_platforms", platforms)
    for command in (["devices"], ["run", DIGITS], ["explain", DIGITS]):
        clinfer(*command).fails_with("OpenCL", "pip install clinfer[pocl]")


@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_explain_says_what_a_cache_has_and_how_the_nearest_differs(
    clinfer, tmp_path, monkeypatch, device
):
    if device == "GPU":
        monkeypatch.setenv("CLINFER_GPU_PLATFORM", platform())
    explain = ("explain", DIGITS, "--cache-dir", tmp_path / "c", "--cache", "--device")
    empty = clinfer(*explain, device)
    assert "is not in the cache (absent" in empty.out
    assert not (tmp_path / "c").exists()
    clinfer("warm", DIGITS, "--device", device, "--cache-dir", tmp_path / "c")
    assert "is not in the cache" not in clinfer(*explain, device).out
    lock = tmp_path / "lock"
    clinfer("devices", "--device", device, "--lock", lock)
    document = json.loads(lock.read_text())
    for found in document["devices"]:
        found["driver_version"] = "99.0"
    lock.write_text(json.dumps(document))
    assert "driver: '99.0' here" in clinfer(*explain, f"@{lock}").out


def test_a_cache_that_is_not_there_is_an_error(clinfer, tmp_path):
    for action in ("list", "info", "verify", "prune", "clear"):
        done = clinfer("cache", action, tmp_path / "none")
        assert done.code == 1
        assert "none" in done.err


def test_a_pipe_or_a_device_is_no_cache(clinfer, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        for action in ("list", "info", "verify", "prune", "clear"):
            clinfer("cache", action, place).fails_with("is a pipe or a device")


def test_a_directory_that_others_write_is_not_called_empty_or_intact(clinfer, tmp_path):
    clinfer("warm", DIGITS, "--device", "CPU", "--cache-dir", tmp_path / "c")
    (tmp_path / "c").chmod(0o777)
    for action in ("list", "verify"):
        done = clinfer("cache", action, tmp_path / "c")
        assert done.code == 5
        assert "can be written by every user" in done.err


def test_a_directory_in_an_entrys_place_is_told(clinfer, tmp_path):
    clinfer("warm", DIGITS, "--device", "CPU", "--cache-dir", tmp_path / "c")
    (entry,) = (tmp_path / "c" / "entries").glob("*/*")
    entry.unlink()
    entry.mkdir()
    done = clinfer("cache", "verify", tmp_path / "c")
    assert done.code == 1
    assert "is a directory" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("unpack", "p", "--limit", "5Q"),
        ("cache", "prune", "--size", "much"),
        ("cache", "prune", "--age", "old"),
    ],
)
def test_sizes_and_ages_are_asked_for_in_words(clinfer, arguments):
    done = clinfer(*arguments)
    assert done.code == 2
    assert ": expected " in done.err


def test_clear_says_what_could_not_be_removed(clinfer, tmp_path, monkeypatch):
    clinfer("warm", DIGITS, "--device", "CPU", "--cache-dir", tmp_path / "c")

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "read-only", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        for action in (("clear",), ("prune", "--size", "1")):
            done = clinfer("cache", *action, tmp_path / "c")
            assert done.code == 1
            assert "1 entries could not be removed" in done.err
    assert clinfer("cache", "clear", tmp_path / "c").code == 0


def test_run_tells_what_the_cache_did(clinfer, tmp_path):
    run = ("run", DIGITS, "--device", "CPU", "--cache-dir", tmp_path / "c")
    assert "misses: 1 absent; 1 stored" in clinfer(*run).out
    (counts,) = json.loads(clinfer(*run, "--json").out)["cache"]
    assert (counts["hits"], counts["misses"], counts["stored"]) == (1, {}, 0)
    assert counts["bytes_read"] > 0
    assert counts["seconds_saved"] > 0


def test_run_names_the_layers_where_they_are_all_there_is(clinfer, tmp_path, monkeypatch):
    clinfer("warm", DIGITS, "--device", "CPU", "--cache-dir", tmp_path / "c")
    monkeypatch.setenv("CLINFER_CACHE_PATH", str(tmp_path / "c"))
    run = ("run", DIGITS, "--device", "CPU", "--cache-dir", "")
    assert "cache CLINFER_CACHE_PATH: 1 hits" in clinfer(*run).out


def test_a_pipe_is_no_model(clinfer, tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for command in ("run", "explain", "compile"):
        arguments = ("-o", tmp_path / "blob") if command == "compile" else ()
        done = clinfer(command, tmp_path / "pipe.onnx", "--device", "CPU", *arguments)
        assert done.code == 1
        assert "is a pipe" in done.err
