"""Runs the tests of the adapters with the real platforms, each in an environment of its own.

    python tools/try_adapters.py [kserve mlserver bentoml triton] [--folder DIR]

Each package is installed by pip with clinfer beside it; together they do not fit into one
environment. What cannot be installed here is told of and skipped; a test that fails ends it with
exit code 1. With --folder the environments are kept, so that the next run is quick.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLATFORMS = {
    "kserve": "kserve",
    "mlserver": "mlserver",
    "bentoml": "bentoml",
    "triton": "nvidia-pytriton",
}
_BESIDE = (f"{ROOT}[pocl,serve]", "pytest", "hypothesis", "httpx", "onnxruntime")


def main() -> None:
    """A line per platform."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", default=list(PLATFORMS))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if not PLATFORMS.keys() >= set(options.platforms):
        parser.error(f"the platforms are {', '.join(PLATFORMS)}")
    with tempfile.TemporaryDirectory(prefix="clinfer-adapters-") as temporary:
        folder = options.folder or Path(temporary)
        outcomes = {name: tried(name, folder / name) for name in options.platforms}
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    sys.exit(any(outcome == "failed" for outcome in outcomes.values()))


def tried(name: str, folder: Path) -> str:
    """'passed', 'failed', or 'not installed'."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", PLATFORMS[name], *_BESIDE]
    if subprocess.run(install, check=False).returncode != 0:
        return "not installed"
    paths = (ROOT / "runtime", ROOT / "kernels", ROOT / "tests")
    found = subprocess.run(
        [python, "-m", "pytest", "-q", "tests/serve/test_adapters.py", "-k", name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=False,
    )
    return "passed" if found.returncode == 0 else "failed"


if __name__ == "__main__":
    main()
