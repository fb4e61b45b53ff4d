"""`clinfer completion`: what the script completes in bash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from clinfer.cli.parser import COMMANDS

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@pytest.fixture
def script(clinfer, tmp_path):
    """The script for bash, in a file."""
    pytest.importorskip("shtab")
    path = tmp_path / "completion.bash"
    path.write_text(clinfer("completion", "bash").out)
    return path


def completed(script, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = (
        f"source {script}; cd {script.parent}; COMP_WORDS=({' '.join(map(repr, words))}); "
        f"COMP_CWORD={len(words) - 1}; $(complete -p clinfer | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


@needs_bash
def test_commands_options_choices_and_files_are_completed(script):
    assert completed(script, "clinfer", "") == sorted(COMMANDS)
    assert completed(script, "clinfer", "ve") == ["verify"]
    assert "--no-cache" in completed(script, "clinfer", "run", "--no")
    assert completed(script, "clinfer", "bench", "-hint", "la") == ["latency"]
    assert completed(script, "clinfer", "cache", "in") == ["info"]
    (script.parent / "model.onnx").touch()
    assert completed(script, "clinfer", "run", "mod") == ["model.onnx"]


def test_every_shell_of_shtab_gets_a_script(clinfer):
    shtab = pytest.importorskip("shtab")
    for shell in shtab.SUPPORTED_SHELLS:
        document = json.loads(clinfer("completion", shell, "--json").out)
        assert document["shell"] == shell
        assert "no-cache" in document["script"]
    clinfer("completion", "cmd").fails_with("'cmd'", "bash")


def test_without_shtab_it_says_what_to_install(clinfer, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    clinfer("completion", "bash").fails_with("shtab", "pip install clinfer[cli]")
