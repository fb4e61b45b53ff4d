"""`clinfer warm --fleet`: several workers and one store, one of them killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from api.made import dense_model, one_node, save
from clinfer.cli import main
from clocks import LIMIT

pytest.importorskip("fsspec")

# A compiler that notes what it has built, and one that hangs at the second program.
_COMPILER = """import hashlib, os, sys, time
sys.path[:] = {path!r}
from clinfer.device import compiling
compile_well = compiling.compile_to_binary
def compile_to_binary(context, source, quirks):
    parent = os.getppid()
    built = open(BUILT, "a+")
    built.seek(0)
    while HANGS and built.read().count(TAG) and os.getppid() == parent:
        open(HANGS, "w").close()
        time.sleep(0.05)
        built.seek(0)
    if os.getppid() != parent:
        os._exit(1)
    binary = compile_well(context, source, quirks)
    digest = hashlib.sha256(repr(source).encode()).hexdigest()
    built.write(TAG + " " + digest + chr(10))
    built.close()
    return binary
compiling.compile_to_binary = compile_to_binary
from clinfer.device.worker import main
main()
"""
_PROCESS = """import sys
from clinfer.device import workers
workers._START = sys.argv[1]
from clinfer.cli import main
sys.exit(main(sys.argv[2:]))
"""


def worker(tag: str, built: Path, arguments: list[str], hangs: Path | None = None):
    names = {"BUILT": str(built), "TAG": tag, "HANGS": str(hangs) if hangs else ""}
    code = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + _COMPILER
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS, code, "warm", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Two models that share a program."""
    float32 = 1
    softmax = one_node("Softmax", {"x": (float32, [3, 40])}, {"y": (float32, [3, 40])}, axis=1)
    made = [dense_model(), dense_model(seed=1), softmax]
    return [str(save(model, tmp_path / f"{n}.onnx")) for n, model in enumerate(made)]


def until(condition) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_is_killed_and_the_other_completes_the_store(device, models, tmp_path, capsys):
    built, hangs, store = tmp_path / "built", tmp_path / "hangs", tmp_path / "store"
    shared = [*models, "--device", device, "--store", f"file://{store}"]
    arguments = [*shared, "--fleet", "--lease", "2", "--jobs", "1"]
    dies = worker("dies", built, arguments, hangs)
    until(lambda: hangs.exists() or dies.poll() is not None)
    lives = worker("lives", built, arguments)
    try:
        until(lambda: "lives" in built.read_text() or lives.poll() is not None)
    finally:
        os.kill(dies.pid, signal.SIGKILL)
        dies.communicate(timeout=LIMIT)
    document = json.loads(lives.communicate(timeout=LIMIT)[0])
    assert lives.returncode == 0, document
    notes = [line.split() for line in built.read_text().splitlines()]
    assert {tag for tag, _ in notes} == {"dies", "lives"}
    assert set(Counter(digest for _, digest in notes).values()) == {1}
    assert main(["verify", *shared]) == 0
    # Nothing but entries is left, and what the killed one was writing.
    assert {path.name for path in store.iterdir() if any(path.iterdir())} <= {"entries", "tmp"}
    capsys.readouterr()
    assert main(["warm", *arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert {row["result"] for row in rows} == {"was warm"}


def test_a_damaged_entry_of_the_store_is_made_again(device, models, tmp_path, capsys):
    store = tmp_path / "store"
    shared = [models[2], "--device", device, "--store", f"file://{store}"]
    assert main(["warm", *shared, "--fleet", "--cache-dir", str(tmp_path / "own")]) == 0
    entries = [path for path in (store / "entries").rglob("*") if path.is_file()]
    for path in entries:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert main(["verify", *shared]) == 3
    # What this machine has goes to the store; nothing is built for that.
    capsys.readouterr()
    arguments = ["warm", *shared, "--fleet", "--cache-dir", str(tmp_path / "own"), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["built"] == 0
    assert main(["verify", *shared]) == 0


def test_what_a_fleet_cannot_be(capsys, cpu, models, tmp_path):
    assert main(["warm", models[0], "--fleet", "--cache-dir", str(tmp_path)]) == 1
    assert "--store URL" in capsys.readouterr().err
    arguments = ["warm", models[0], "--fleet", "--store", "memory://fleet"]
    assert main([*arguments, "--tune", "1"]) == 1
    assert "tune on one machine first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--shard", "0/2"])
