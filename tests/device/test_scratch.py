"""Drivers' files: a folder a process, gone with it, and no one else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clinfer.device import scratch
from clocks import LIMIT

MAKE = "from clinfer.device import scratch; print(scratch.new_folder(), flush=True); "


def child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LIMIT
    )


def test_a_folder_goes_with_its_process():
    folder = Path(child(MAKE + "open(scratch._held[0].name + '2', 'w').close()").stdout.strip())
    assert folder.name.startswith("clinfer-scratch-")
    assert not folder.exists()


def test_a_forked_child_leaves_its_parents_folder():
    code = (
        MAKE
        + "import os; pid = os.fork(); pid or exit(0); os.waitpid(pid, 0); print(os.path.isdir("
    )
    done = child(code + "os.path.dirname(scratch._held[0].name)))")
    assert done.stdout.split()[-1] == "True"


def test_folders_of_killed_processes_go_and_living_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_base", lambda: tmp_path)
    mine = scratch.new_folder()
    killed = child(
        "import os, signal\nfrom pathlib import Path\nfrom clinfer.device import scratch\n"
        f"scratch._base = lambda: Path({str(tmp_path)!r})\n"
        "print(scratch.new_folder(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = Path(killed.stdout.strip())
    young = tmp_path / "clinfer-scratch-young"
    young.mkdir()
    assert dead.exists()
    for folder in (mine, dead):
        os.utime(folder, (time.time() - 1000,) * 2)
    scratch.new_folder()
    assert not dead.exists()
    assert mine.exists()
    assert young.exists()


@pytest.mark.parametrize("chosen", [None, "driver"])
def test_pocls_files_go_there_unless_the_user_has_chosen(chosen, tmp_path):
    code = (
        "import json, os\nfrom clinfer.device.opencl import cl, pocl_folder\ncl()\n"
        "print(json.dumps([str(pocl_folder()), os.environ.get('POCL_CACHE_DIR')]))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "POCL_CACHE_DIR"}
    if chosen:
        environment["POCL_CACHE_DIR"] = str(tmp_path / chosen)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    folder, variable = json.loads(done.stdout)
    assert ("clinfer-scratch-" in folder) == (chosen is None)
    assert variable == environment.get("POCL_CACHE_DIR")
