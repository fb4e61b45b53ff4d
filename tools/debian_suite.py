"""Runs a command on another Debian suite: newer PoCL, Python, compilers, without installing them.

    sudo python tools/debian_suite.py FOLDER trixie -- python tools/bench_pocl.py resnet50.onnx
    sudo python tools/debian_suite.py FOLDER sid --bind /models -- python -m pytest tests/kernels

The first call unpacks the suite into FOLDER/SUITE with debootstrap (Debian's package of that name,
0.5 to 1 GB), with PoCL and what `--package` names, and makes a virtual environment there with the
project's dependencies. Later calls take what is there. The checkout lies at its own path inside,
/proc, /sys (PoCL without it says 'not enough memory') and /dev too, and the certificates that this
machine trusts; mounts are private to the call. Nothing outside the folder is changed. Needs root,
as chroot does.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("python3-venv", "ca-certificates", "ocl-icd-libopencl1", "pocl-opencl-icd")
WHEELS = (
    *("pyopencl", "numpy", "onnx", "platformdirs", "filelock", "xxhash", "rich", "shtab", "pillow"),
    *("cryptography", "fsspec", "pytest", "hypothesis", "onnxruntime"),
)
_VENV = "/venv"
_BOUND = ("/proc", "/sys", "/dev")
_COPIED = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


def main() -> int:
    """The command line; returns the command's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("suite", help="trixie, forky, sid ...")
    parser.add_argument("--package", action="append", default=[], help="unpacked too")
    parser.add_argument("--bind", action="append", default=[], metavar="DIR", help="seen inside")
    parser.add_argument("--wheels", metavar="DIR", help="where pip takes all from, not an index")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:split])
    root = options.folder.resolve() / options.suite
    if not (root / "etc/debian_version").exists():
        unpack(root, options.suite, (*PACKAGES, *options.package))
    if not (root / _VENV.lstrip("/") / "done").exists():
        bound, source = options.bind, ""
        if options.wheels is not None:
            bound = [*bound, options.wheels]
            source = f"--no-index --find-links {shlex.quote(options.wheels)}"
        script = (
            f"python3 -m venv {_VENV} && {_VENV}/bin/pip install -q {source} {shlex.join(WHEELS)} "
            f"&& touch {_VENV}/done"
        )
        if code := inside(root, ["sh", "-c", script], bound):
            return code
    return inside(root, words[split + 1 :] or ["python", "--version"], options.bind)


def unpack(root: Path, suite: str, packages: Sequence[str]) -> None:
    """Raises `CalledProcessError` where debootstrap does not succeed, `OSError` where it is not."""
    root.parent.mkdir(parents=True, exist_ok=True)
    included = f"--include={','.join(packages)}"
    command = ["debootstrap", "--variant=minbase", included, suite, str(root)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def inside(root: Path, command: Sequence[str], bound: Sequence[str]) -> int:
    """Runs a command in the suite, in the checkout; its exit code."""
    for name in _COPIED:
        if Path(name).exists():
            place = root / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(Path(name).read_bytes())
    lines = ["set -e"]
    for place in dict.fromkeys((*_BOUND, str(ROOT), *bound)):
        inner = f"{root}{place}"
        Path(inner).mkdir(parents=True, exist_ok=True)
        lines.append(f"mount --rbind {shlex.quote(place)} {shlex.quote(inner)}")
    work = f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(command)}"
    lines.append(f"exec chroot {shlex.quote(str(root))} sh -c {shlex.quote(work)}")
    path = os.pathsep.join(str(ROOT / part) for part in ("runtime", "kernels", "tests", "tools"))
    variables = {
        **{k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"},
        "PATH": f"{_VENV}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/root",
        "TMPDIR": "/tmp",
    }
    script = "\n".join(lines)
    called = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(called, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
