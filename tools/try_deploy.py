"""Runs the recipes of deploy/ as they are written, as far as this machine allows.

    python tools/try_deploy.py                          all of them
    python tools/try_deploy.py kubernetes github        these
    python tools/try_deploy.py image pre-commit         take a registry of packages, and minutes

image        `docker build` and `docker run` of deploy/Dockerfile where an engine answers; else its
             instructions one by one in a copy of this system (`deploy_image.py`; root, overlayfs)
kubernetes   the manifests against Kubernetes' schemas (the package kubernetes-validate), then each
             container's command with its variables, init containers first, volumes as folders
github       the workflow against GitHub's schema (check-jsonschema), then its `run` steps, twice:
             the second run has the first one's cache and must build nothing
pre-commit   both hooks by `pre-commit try-repo`

What the machine does not have is said. Exit code 1 where a recipe fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import deploy_image

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
EXAMPLE = ROOT / "examples" / "digits.onnx"
KUBERNETES = "1.34"
_KIND = {"Job": ("spec", "template", "spec"), "Deployment": ("spec", "template", "spec")}
_EXPRESSION = re.compile(r"\$\{\{\s*github\.workspace\s*\}\}")
_TEST = """
def test_model(clinfer_core, clinfer_device):
    model = clinfer_core.compile_model("models/digits.onnx", clinfer_device)
    assert model.get_property("LOADED_FROM_CACHE")
"""


class NotTriedError(Exception):
    """The machine does not have what a recipe takes."""


def say(text: str) -> None:
    """One line, at once: what follows may take a while."""
    print(text, flush=True)


def run(command: list[str], env: dict[str, str], folder: Path) -> str:
    """What a command prints; its end is printed where it fails. Raises `CalledProcessError`."""
    done = subprocess.run(
        command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        say(done.stdout[-3000:])
    done.check_returncode()
    return done.stdout


def environment(work: Path) -> dict[str, str]:
    """This process's variables without clinfer's, with its Python's commands first on PATH."""
    commands = work / "bin"
    if not commands.exists():
        commands.mkdir(parents=True)
        for name, module in (("clinfer", "-m clinfer"), ("python", "")):
            script = commands / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            script.chmod(0o755)
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("CLINFER_", "JOB_COMPLETION"))}
    kept["PATH"] = f"{commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path[1:]))
    return kept


def models(folder: Path) -> None:
    """The example's model, in a folder of models."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE, folder)
    shutil.copy(EXAMPLE.with_suffix(".npz"), folder)


# -- Kubernetes --------------------------------------------------------------------------------


def kubernetes(work: Path) -> None:
    """warm.yaml, then what uses its cache."""
    models(work / "models")
    (work / "clinfer-cache").mkdir(mode=0o770)
    for name in ("warm.yaml", "service.yaml", "image-volume.yaml"):
        document = yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())
        _validate(document, name)
        if name == "image-volume.yaml":
            _image_volume(work)
        for pod in _pods(document):
            _run_pod(pod, work, name)


def _validate(document: dict[str, Any], name: str) -> None:
    if find_spec("kubernetes_validate") is None:
        say(f"  {name}: schema not checked: kubernetes-validate is not installed")
        return
    import kubernetes_validate

    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    say(f"  {name}: valid for Kubernetes {KUBERNETES}")


def _pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods' specifications with the index of an indexed Job: the first two, in 'index'."""
    spec = document
    for key in _KIND.get(document["kind"], ("spec",)):
        spec = spec[key]
    if document["spec"].get("completionMode") == "Indexed":
        yield {**spec, "index": "0"}
        yield {**spec, "index": "1"}
    else:
        yield spec


def _run_pod(pod: dict[str, Any], work: Path, name: str) -> None:
    places = {volume["name"]: _volume(volume, work) for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        mounts = {m["mountPath"]: places[m["name"]] for m in container["volumeMounts"]}
        env = environment(work)
        for variable in container.get("env", ()):
            env[variable["name"]] = _mapped(variable["value"], mounts)
        if "index" in pod:
            env["JOB_COMPLETION_INDEX"] = pod["index"]
        command = [_mapped(part, mounts) for part in container["command"]]
        run(command, env, work)
        say(f"  {name}: container '{container['name']}' {pod.get('index', '')}".rstrip() + ": done")


def _volume(volume: dict[str, Any], work: Path) -> Path:
    """The folder that stands for a volume: by the claim's name, else by the volume's."""
    claim = volume.get("persistentVolumeClaim", {}).get("claimName", volume["name"])
    folder = work / claim
    folder.mkdir(exist_ok=True)
    return folder


def _mapped(text: str, mounts: dict[str, Path]) -> str:
    """A text with folders in place of the paths where they are mounted."""
    longest = sorted(map(re.escape, mounts), key=len, reverse=True)
    pattern = rf"(?<![\w/.-])({'|'.join(longest)})(?![\w.-])"
    return re.sub(pattern, lambda match: str(mounts[match[1]]), text)


def _image_volume(work: Path) -> None:
    """What image-volume.yaml's comment does, and the layer unfolded as a node mounts it."""
    env = {**environment(work), "CLINFER_TRUST_FILE": str(work / "serials.json")}
    keys = work / "keys"
    keys.mkdir()
    key = str(keys / "build.key")
    run(["clinfer", "pack", "--new-key", key], env, work)
    cache = ["--cache-dir", "clinfer-cache/clinfer", "--key", key]
    env["CLINFER_CACHE_ALLOW_SHARED"] = "1"
    run(["clinfer", "pack", "--oci", "image", "--name", "models", *cache], env, work)
    target = work / "models-cache"
    layers = [p for p in (work / "image" / "blobs" / "sha256").iterdir() if tarfile.is_tarfile(p)]
    for layer in layers:
        with tarfile.open(layer) as archive:
            archive.extractall(target, filter="data")
    say("  image-volume.yaml: the pack is an OCI image of one layer, unfolded")


# -- GitHub ------------------------------------------------------------------------------------


def github(work: Path) -> None:
    """The workflow's commands in a project with one model and one test."""
    file = DEPLOY / "github" / "test-on-cpu.yml"
    if find_spec("check_jsonschema") is None:
        say("  schema not checked: check-jsonschema is not installed")
    else:
        check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
        run([*check, "vendor.github-workflows", str(file)], dict(os.environ), work)
        say("  valid by GitHub's schema of workflows")
    workflow = yaml.safe_load(file.read_text())
    (job,) = workflow["jobs"].values()
    models(work / "models")
    (work / "test_models.py").write_text(_TEST)
    env = environment(work)
    env.update({name: _EXPRESSION.sub(str(work), text) for name, text in job["env"].items()})
    for turn in ("first", "second"):
        for step in job["steps"]:
            if "run" not in step:
                continue
            if "pip install" in step["run"]:
                say(f"  {turn} run: '{step['name']}' left out: this Python has clinfer")
                continue
            out = run(["bash", "-e", "-c", _with_plugin(step["run"])], env, work)
            said = "was warm" if "was warm" in out else "done"
            say(f"  {turn} run: '{step['name']}': {said}")
            if turn == "second" and step["name"] == "warm" and said != "was warm":
                raise RuntimeError("the second run has compiled again")


def _with_plugin(command: str) -> str:
    """pytest told of the plugin, where clinfer is used from its source and so names none."""
    from importlib.metadata import entry_points

    named = any(point.value == "clinfer.testing" for point in entry_points(group="pytest11"))
    return command if named else command.replace("-m pytest", "-m pytest -p clinfer.testing")


# -- pre-commit, image -------------------------------------------------------------------------


def pre_commit(work: Path) -> None:
    """Both hooks on a repository with the example's model."""
    if find_spec("pre_commit") is None:
        raise NotTriedError("pre-commit is not installed")
    models(work)
    env = {**environment(work), "CLINFER_CACHE_DIR": str(work / "cache")}
    for command in (["init", "-q"], ["add", "digits.onnx"]):
        run(["git", *command], env, work)
    hook = [sys.executable, "-m", "pre_commit", "try-repo", str(ROOT)]
    run([*hook, "clinfer-no-host-steps", "--all-files"], env, work)
    say("  clinfer-no-host-steps: passed")
    done = subprocess.run(
        [*hook, "clinfer-verify", "--all-files"], env=env, cwd=work, capture_output=True, text=True
    )
    if "incomplete" not in done.stdout or not done.returncode:
        raise RuntimeError(f"verify found an empty cache complete: {done.stdout[-2000:]}")
    say("  clinfer-verify: an empty cache is incomplete")
    run(["clinfer", "warm", "digits.onnx", "--device", "CPU"], env, work)
    run([*hook, "clinfer-verify", "--all-files"], env, work)
    say("  clinfer-verify: passed with the cache that `clinfer warm` has filled")


def image(work: Path) -> None:
    """By an engine, else instruction by instruction."""
    docker = shutil.which("docker") or shutil.which("podman")
    file = DEPLOY / "Dockerfile"
    if docker and subprocess.run([docker, "info"], capture_output=True).returncode == 0:
        run([docker, "build", "-f", str(file), "-t", "clinfer-recipe", "."], dict(os.environ), ROOT)
        isolated = [docker, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "clinfer-recipe"]
        say("  " + run(isolated, dict(os.environ), ROOT).strip().splitlines()[-1])
        return
    say("  no engine answers: its instructions one by one in a copy of this system")
    try:
        deploy_image.build_and_run(file, ROOT, work, say)
    except deploy_image.UnavailableError as error:
        raise NotTriedError(str(error)) from error


RECIPES: dict[str, Callable[[Path], None]] = {
    "kubernetes": kubernetes,
    "github": github,
    "pre-commit": pre_commit,
    "image": image,
}


def main() -> int:
    """Tries the recipes named; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="*", choices=[[], *RECIPES], metavar="RECIPE")
    failed = False
    for name in parser.parse_args().recipe or RECIPES:
        say(f"{name}:")
        with tempfile.TemporaryDirectory(prefix="clinfer-deploy-") as folder:
            try:
                RECIPES[name](Path(folder))
            except NotTriedError as error:
                say(f"  not tried: {error}")
            except Exception as error:  # the others are tried all the same
                failed = True
                say(f"  FAILED: {type(error).__name__}: {error}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
