"""CPU_TARGET: code for a named processor, under keys that every machine finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from platform import machine

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import clinfer
from clinfer import config
from clinfer.cache.entry import read, to_bytes
from clinfer.cli import main
from clinfer.device import discover, pocl_binary, pocl_view, processor
from clinfer.device.cpu_target import TARGETS, named
from clinfer.device.lock import LockedDevice
from clinfer.device.opencl import loaders_package
from clinfer.plugins.compiler import device_fields
from platforms import POCL, platform

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or machine() != "x86_64", reason="for x86-64 Linux"
)
HERE = "x86-64-v3"
LOW = "x86-64-v2"
X = np.random.default_rng(1).standard_normal((6, 24)).astype(np.float32)
W = np.random.default_rng(2).standard_normal((24, 10)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def pocl() -> Iterator[None]:
    """PoCL's wheel, on a processor of level 3."""
    with pytest.MonkeyPatch.context() as patch:
        if platform() != POCL:
            pytest.skip("a target is PoCL's")
        patch.setenv("CLINFER_CPU_PLATFORM", POCL)
        for name in ("CLINFER_CACHE_DIR", "CLINFER_CACHE_PATH", "CLINFER_CPU_TARGET"):
            patch.delenv(name, raising=False)
        try:
            pocl_view.require(loaders_package())
        except clinfer.DeviceError as error:
            pytest.skip(str(error))
        if TARGETS[HERE].needs - processor.flags():
            pytest.skip("the processor is below level 3")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tanh(exp(x @ w)), and the positions where x is above 0: their number only a run knows, so
    that the driver's queue runs it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Exp", ["xw"], ["e"]),
        helper.make_node("Tanh", ["e"], ["y"]),
        helper.make_node("Greater", ["x", "zero"], ["above"]),
        helper.make_node("NonZero", ["above"], ["where"]),
        helper.make_node("Neg", ["where"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 24])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 10]),
            helper.make_tensor_value_info("z", TensorProto.INT64, [2, "found"]),
        ],
        [
            onnx.numpy_helper.from_array(W, "w"),
            onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def cache(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one command has filled for two levels."""
    folder = tmp_path_factory.mktemp("cache") / "c"
    arguments = ["--device", "CPU", "--cache-dir", str(folder), "--cpu-target", f"{LOW},{HERE}"]
    assert main(["warm", str(model), *arguments, "--json"]) == 0
    return folder


@pytest.mark.parametrize("target", [LOW, HERE])
def test_a_warmed_target_is_loaded_and_right(cache: Path, model: Path, target: str) -> None:
    settings = {"CPU_TARGET": target, "CACHE_DIR": str(cache), "CACHE_MODE": "cache-only"}
    compiled = clinfer.Core().compile_model(model, "CPU", settings)
    result = compiled({"x": X})
    assert compiled.get_property("LOADED_FROM_CACHE")
    np.testing.assert_allclose(result["y"], np.tanh(np.exp(X @ W)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result["z"], -np.array(np.nonzero(X > 0)))


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) shows the code")
def test_the_code_has_no_instruction_beyond_its_target(cache: Path, tmp_path: Path) -> None:
    beyond = {LOW: r"%[yz]mm|%k[1-7]|\bv[a-z]", HERE: r"%zmm|%k[1-7]|%[xy]mm(1[6-9]|2\d|3[01])"}
    for file in cache.glob("entries/*/*"):
        entry = read(file)
        target = str(entry.record.get("device"))
        text = "".join(_listings(entry, tmp_path))
        assert "mm0" in text
        instructions = re.findall(r"^ +[0-9a-f]+:\t(.*)$", text, re.MULTILINE)
        assert not [line for line in instructions if re.search(beyond[target], line)]


def _listings(entry, folder: Path) -> Iterator[str]:
    start = 0
    for length in json.loads(bytes(entry.section("index"))):
        content = bytes(entry.section("binaries")[start : start + length])
        start += length
        for kernel in pocl_binary.parse(content).kernels:
            (folder / "code.so").write_bytes(kernel.files[0].content)
            command = ["objdump", "-d", "--no-show-raw-insn", str(folder / "code.so")]
            yield subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_machines_of_different_generations_have_the_same_keys() -> None:
    info = discover.open_device("CPU").found
    other = info._replace(
        full_name="pthread-Another Processor",
        vendor="GenuineIntel",
        device_version="OpenCL 3.0 PoCL HSTR: pthread-x86_64-unknown-linux-gnu-icelake-server",
        compute_units=96,
        local_mem=48 << 20,
        global_mem=1 << 40,
        vector_width=8,
        processor="icelake-server/x86-64-v4+avx512_vnni",
    )
    target = named(HERE)
    assert target is not None
    here, there = (LockedDevice(target.described(each)) for each in (info, other))
    assert device_fields(here) == device_fields(there)
    assert here.target == there.target
    assert HERE in device_fields(here).values()


@pytest.mark.parametrize("name", config.CPU_TARGETS)
def test_the_player_runs_plans_of_every_target(name: str) -> None:
    assert discover.open_device("CPU", name).info.plays


def test_verify_and_lock_files_name_the_target(cache, model, tmp_path, capsys) -> None:
    lock = tmp_path / "v3.lock"
    arguments = ["devices", "--device", "CPU", "--cpu-target", HERE, "--lock", str(lock)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(lock.read_text())["devices"][0]["cpu_target"] == HERE
    verify = ["verify", str(model), "--cache-dir", str(cache), "--device"]
    assert main([*verify, f"@{lock}"]) == 0
    assert main([*verify, "CPU", "--cpu-target", f"{LOW},{HERE}"]) == 0
    assert main([*verify, "CPU", "--cpu-target", "x86-64-v4"]) == 4
    assert "x86-64-v4" in capsys.readouterr().out
    assert main([*verify, f"@{lock}", "--cpu-target", LOW]) == 1
    assert "lock file" in capsys.readouterr().err


def test_probing_gives_code_of_a_target_to_the_driver(cache: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "c"
    shutil.copytree(cache, copy)
    verify = ["cache", "verify", "--probe", "--cache-dir", str(copy)]
    assert main(verify) == 0
    file = next(copy.glob("entries/*/*"))
    entry = read(file)
    parts = {name: bytes(content) for name, content in entry.sections.items()}
    # Binaries that are none, in an entry whose digests fit.
    parts["binaries"] = parts["binaries"].replace(b"poclbin", b"nothing")
    file.write_bytes(to_bytes(entry.record, parts))
    capsys.readouterr()
    assert main(verify) == 1
    assert "not a binary of PoCL" in capsys.readouterr().out


def test_a_target_beyond_this_processor_is_refused_where_it_would_run(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = TARGETS[HERE].needs
    monkeypatch.setattr(processor, "flags", lambda: flags)
    with pytest.raises(clinfer.DeviceError, match=r"x86-64-v4 .* lacks avx512bw"):
        clinfer.Core().compile_model(model, "CPU", {"CPU_TARGET": "x86-64-v4"})


def test_values(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(TARGETS) == config.CPU_TARGETS
    core = clinfer.Core()
    with pytest.raises(clinfer.PropertyError, match="x86-64-v2"):
        core.set_property({"CPU_TARGET": "i486"})
    monkeypatch.setenv("CLINFER_CPU_TARGET", "x86-64-V3")
    assert core.get_property("CPU", "CPU_TARGET") == HERE


def test_a_driver_that_compiles_for_the_machine_alone_says_so(monkeypatch) -> None:
    device = discover.open_device("CPU")
    device.found = device.found._replace(platform="Intel(R) OpenCL")
    with pytest.raises(clinfer.DeviceError, match=r"clinfer\[pocl\]"):
        device.aimed(HERE)
