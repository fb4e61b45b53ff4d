"""The user's own cache: what a command compiled, the next one finds, without being told of it."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Thread

import platformdirs
import pytest

from cli.conftest import child
from clinfer.cache import files
from clinfer.cache.user import default_directory, default_size

# What a start that finds all it needs must not load.
_NOT_NEEDED = (
    "clinfer.cli.commands.bench",
    "clinfer.graph",
    "clinfer.lowering.lower",
    "clinfer.passes",
    "concurrent",
    "logging",
    "onnx",
    "pyopencl",
    "rich",
    "subprocess",
)


@pytest.fixture
def user(tmp_path, monkeypatch) -> Path:
    """The cache folder of a user who has none yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "clinfer"


def test_the_second_run_builds_nothing(clinfer, two_inputs, user):
    given = (two_inputs, "--device", "CPU", "--json")
    first = json.loads(clinfer("run", *given).out)
    assert first["programs_built"] > 0
    second = json.loads(clinfer("run", *given).out)
    assert (second["programs_built"], second["loaded_from_cache"]) == (0, True)
    assert second["cache"][0]["directory"] == str(user)
    blob = clinfer("compile", *given, "-o", two_inputs.with_suffix(".blob"))
    assert blob.code == 0, blob.err
    assert "1 of the 1 entries" in clinfer("explain", *given[:-1], "--cache").out
    assert json.loads(clinfer("cache", "info", "--json").out)["entries"] == 1
    assert clinfer("cache", "clear").code == 0
    assert "0 of the 1 entries" in clinfer("explain", *given[:-1], "--cache").out


def test_without_a_cache_nothing_is_kept(clinfer, two_inputs, user):
    for _ in range(2):
        done = clinfer("run", two_inputs, "--device", "CPU", "--no-cache", "--json")
        report = json.loads(done.out)
        assert report["programs_built"] > 0
        assert report["cache"] == []
    assert not user.exists()
    assert clinfer("run", two_inputs, "--no-cache", "--cache-dir", "c").code == 2


def test_the_environment_names_another_cache_or_none(clinfer, two_inputs, user, monkeypatch):
    monkeypatch.setenv("CLINFER_CACHE_DIR", str(user.parent / "other"))
    run = ("run", two_inputs, "--device", "CPU", "--json")
    (counts,) = json.loads(clinfer(*run).out)["cache"]
    assert counts["directory"] == str(user.parent / "other")
    monkeypatch.setenv("CLINFER_CACHE_MODE", "off")
    assert json.loads(clinfer(*run).out)["cache"] == []
    assert not user.exists()


def test_a_folder_that_cannot_be_made_is_a_line_and_no_failure(two_inputs, user):
    user.parent.write_text("in the way")
    done = child("run", two_inputs, "--device", "CPU")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"clinfer: nothing is kept for the next time: '{user}' cannot be made")


def test_a_user_without_a_home_is_told_once(clinfer, two_inputs, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *a, **k: "~/.cache/clinfer")
    done = clinfer("run", two_inputs, "--device", "CPU")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert all(word in line for word in ("HOME", "CLINFER_CACHE_DIR", "--no-cache"))
    clinfer("cache", "list").fails_with("HOME")


def test_a_full_disk_is_a_line_and_no_failure(clinfer, two_inputs, user, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_replace", full)
    done = clinfer("run", two_inputs, "--device", "CPU", "--json")
    assert done.code == 0
    assert json.loads(done.out)["cache"][0]["unstored"] == {"no-space": 1}
    assert len(caplog.records) == 1


def test_the_users_folder_takes_a_part_of_the_disk(tmp_path, monkeypatch):
    def disk(total: int):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(total, 0, 0)
        )
        return default_size(tmp_path / "not" / "there")

    assert disk(20 * 2**30) == 2 * 2**30
    assert disk(2**50) == 16 * 2**30
    monkeypatch.setenv("CLINFER_CACHE_SIZE", "3G")
    assert disk(20 * 2**30) == 3 * 2**30
    monkeypatch.setenv("CLINFER_CACHE_SIZE", "0")
    assert disk(20 * 2**30) == 0


def test_info_and_prune_know_the_limit(clinfer, two_inputs, user):
    clinfer("run", two_inputs, "--device", "CPU")
    info = json.loads(clinfer("cache", "info", "--json").out)
    assert info["directory"] == str(default_directory())
    assert info["limit"] == default_size(user)
    assert json.loads(clinfer("cache", "prune", "--json").out)["removed"] == 0


def test_a_start_that_finds_everything_loads_nothing_else(two_inputs):
    run = ("run", two_inputs, "--device", "CPU", "--json")
    assert child(*run).returncode == 0
    code = f"import sys; from clinfer.cli import main; main({[*map(str, run)]!r})"
    found = child(python=("-c", f"{code}; print(*sys.modules, file=sys.stderr)"))
    assert json.loads(found.stdout)["programs_built"] == 0
    loaded = found.stderr.split()
    assert "clinfer.cli.commands.run" in loaded
    for name in _NOT_NEEDED:
        assert not [module for module in loaded if f"{module}.".startswith(f"{name}.")]


@pytest.mark.parametrize("rich", [True, False])
def test_a_build_shows_its_progress_on_a_terminal(two_inputs, rich):
    given = ["run", str(two_inputs), "--device", "CPU", "--no-cache"]
    without = "" if rich else "sys.modules['rich'] = None; "
    code = f"import sys; {without}from clinfer.cli import main; sys.exit(main({given!r}))"
    said = on_terminal(code)
    assert "2/2" in said
    assert "pointwise" in said


def on_terminal(code: str) -> str:
    """What a program writes to its standard error where that is a terminal."""
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                pieces.append(piece)

    reader = Thread(target=read)
    reader.start()
    options = {"capture_output": False, "stdout": subprocess.DEVNULL}
    done = child(python=("-c", code), stderr=theirs, **options)
    os.close(theirs)
    reader.join()
    os.close(ours)
    said = b"".join(pieces).decode()
    assert done.returncode == 0, said
    return said


def test_a_build_is_quiet_elsewhere(clinfer, two_inputs):
    assert clinfer("run", two_inputs, "--device", "CPU", "--no-cache").err == ""


def test_one_commands_parser_loads_no_other():
    code = "import sys; from clinfer.cli.parser import make_parser; make_parser(['run'])"
    done = child(python=("-c", f"{code}; print(*sys.modules)"))
    commands = [name for name in done.stdout.split() if name.startswith("clinfer.cli.commands.")]
    assert commands == ["clinfer.cli.commands.run"]
