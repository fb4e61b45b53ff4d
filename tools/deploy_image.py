"""A Dockerfile's instructions where there is no engine: in an overlay over this system.

Each stage is this machine's root file system with a layer of its own (overlayfs); `FROM` takes its
Python in place of the base image's. RUN, COPY, ARG, ENV, USER and CMD do what Docker's manual says,
as far as our Dockerfile uses them; others are an error. Takes root. Nothing is written below it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_BOUND = ("proc", "sys", "dev")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".ci", ".venv*", "__pycache__", "tests", "site", "dist"
)
_PYTHON = "/usr/bin/python3"


class UnavailableError(Exception):
    """This machine cannot do it; the message says what is missing."""


@dataclass
class Stage:
    """A stage of the build: where its files are, and what later instructions inherit."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    command: list[str] = field(default_factory=list)

    def filled(self, text: str) -> str:
        """The text with variables put in."""
        known = {"PATH": os.environ.get("PATH", ""), **self.arguments, **self.variables}
        return _VARIABLE.sub(lambda match: known.get(match[1] or match[2], ""), text)

    def run(self, command: list[str]) -> str:
        """Runs a command in the stage as its user. Raises `CalledProcessError`."""
        inside = ["chroot", f"--userspec={self.user}", str(self.root), *command]
        network = {n: v for n, v in os.environ.items() if n.lower().startswith(("pip_", "http"))}
        env = {"PATH": _system_path(), "HOME": "/tmp", **network}
        done = subprocess.run(
            inside,
            env={**env, **self.arguments, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(done.stdout[-3000:])
        done.check_returncode()
        return done.stdout


def build_and_run(file: Path, context: Path, work: Path, say: Callable[[str], None]) -> None:
    """Builds every stage, then runs the last one's command as its user.

    Raises `UnavailableError`, and `CalledProcessError` for a command that fails.
    """
    if os.name == "nt" or os.geteuid() != 0:
        raise UnavailableError("only root can mount an overlay")
    stages: dict[str, Stage] = {}
    stage = None
    with ExitStack() as mounted:
        for word, rest in instructions(file.read_text(encoding="utf-8")):
            if word == "FROM":
                image, _, name = rest.partition(" AS ")
                stage = Stage(mounted.enter_context(_overlay(work / name)))
                stages[name] = stage
                _link_python(stage)
                say(f"  FROM {image}: this system's Python, as '{name}'")
                continue
            assert stage is not None
            done = _DO[word](stage, rest, stages, context)
            say(f"  {word} {rest[:90]}{': ' + done if done else ''}")
        assert stage is not None
        last = stage.run(stage.command).strip().splitlines()[-1]
        say(f"  {' '.join(stage.command)}, as {stage.user}: {last}")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(word, rest) of each instruction: comments are left out, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word, rest.strip()


@contextmanager
def _overlay(folder: Path) -> Iterator[Path]:
    root, upper, inner = folder / "root", folder / "upper", folder / "inner"
    for made in (root, upper, inner):
        made.mkdir(parents=True)
    options = f"lowerdir=/,upperdir={upper},workdir={inner}"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"no overlay can be mounted: {done.stderr.strip()}")
    try:
        for name in _BOUND:
            subprocess.run(["mount", "--rbind", f"/{name}", str(root / name)], check=True)
            subprocess.run(["mount", "--make-rslave", str(root / name)], check=True)
        yield root
    finally:
        for name in _BOUND:
            subprocess.run(["umount", "-R", "-l", str(root / name)], check=False)
        subprocess.run(["umount", str(root)], check=False)


def _link_python(stage: Stage) -> None:
    """`python`, as the image has it; this machine's own may lie where only root may look."""
    if not Path(_PYTHON).exists():
        raise UnavailableError(f"{_PYTHON} is not installed")
    link = stage.root / "usr/local/bin/python"
    link.unlink(missing_ok=True)
    link.symlink_to(_PYTHON)


def _system_path() -> str:
    return "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"


def _run(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    if rest.startswith("apt-get") and shutil.which("ld") and "binutils" in rest:
        return "left out: this system has ld"
    stage.run(["sh", "-c", rest])
    return ""


def _copy(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    words = stage.filled(rest).split()
    flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
    source, target = (word for word in words if not word.startswith("--"))
    base = stages[flags["from"]].root if "from" in flags else context
    place = stage.root / target.lstrip("/")
    for path in sorted(base.glob(source.lstrip("/"))) if source != "." else [base]:
        if path.is_dir():
            shutil.copytree(path, place, symlinks=True, ignore=_NOT_COPIED, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
    if "chown" in flags:
        owner = f"{flags['chown']}:{flags['chown']}"
        stage_root = ["chroot", str(stage.root), "chown", "-R", owner, target]
        subprocess.run(stage_root, check=True)
    return ""


def _arg(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    name, _, value = rest.partition("=")
    stage.arguments[name] = value
    return ""


def _env(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    if not stage.variables:
        stage.variables["PATH"] = _system_path()
    before = {**stage.arguments, **stage.variables}
    for word in rest.split():
        name, _, value = word.partition("=")
        filled = _VARIABLE.sub(lambda match: before.get(match[1] or match[2], ""), value)
        stage.variables[name] = filled
    return ""


def _user(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    stage.user = rest
    return ""


def _cmd(stage: Stage, rest: str, stages: dict[str, Stage], context: Path) -> str:
    stage.command = json.loads(rest)
    return ""


_DO = {"RUN": _run, "COPY": _copy, "ARG": _arg, "ENV": _env, "USER": _user, "CMD": _cmd}
