"""deploy/ and the hooks: what they name is there. `tools/try_deploy.py` runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from clinfer import config
from clinfer.cli.parser import make_parser

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parent.parent
HOOKS = ROOT / ".pre-commit-hooks.yaml"
FILES = sorted([*ROOT.glob("deploy/**/*.y*ml"), ROOT / "deploy" / "Dockerfile", HOOKS])
KNOWN = {variable.name for variable in config.VARIABLES}


def documents() -> list[Any]:
    return [yaml.safe_load(file.read_text()) for file in FILES if file.suffix in (".yaml", ".yml")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_variables_are_clinfers(file: Path) -> None:
    named = set(re.findall(r"CLINFER_[A-Z_]+", file.read_text()))
    assert named <= KNOWN


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_are_clinfers(file: Path) -> None:
    parser = make_parser()
    for line in re.findall(r"(?:RUN|run:|exec|entry:|#    ) *clinfer ([^\"\n]+)", file.read_text()):
        words = shlex.split(line)
        model = ["m.onnx"] if file == HOOKS else []
        parser.parse_args([*words, *model])


def test_hooks_that_the_example_uses_exist_and_take_its_arguments() -> None:
    hooks = {hook["id"]: hook for hook in yaml.safe_load(HOOKS.read_text())}
    example = yaml.safe_load((ROOT / "deploy" / "pre-commit-config.yaml").read_text())
    (repo,) = example["repos"]
    for used in repo["hooks"]:
        hook = {**hooks[used["id"]], **used}
        command = [*shlex.split(hook["entry"])[1:], *hook["args"], "a.onnx", "b.onnx"]
        assert make_parser().parse_args(command).model == [Path("a.onnx"), Path("b.onnx")]


def test_every_container_that_reads_the_cache_is_of_one_target() -> None:
    targets = []
    for document in documents():
        targets += re.findall(r"'CLINFER_CPU_TARGET', 'value': '([\w-]+)'", str(document))
    assert len(targets) > 3
    assert len(set(targets)) == 1
