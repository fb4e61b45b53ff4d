"""Unpacks the GPU vendors' compilers into a folder, without installing them (Debian and its like).

    python tools/unpack_compilers.py FOLDER
    export GPU_ROOT=FOLDER/root GPU_VENV=FOLDER/venv

AMD: clang, lld and rocm-device-libs. NVIDIA: libclc with its own clang, and the wheels of ptxas and
nvdisasm. Intel: the GPU driver with its offline compiler, ocloc. Oclgrind. About 1.7 GB. Packages
come through apt-get and pip, as those are set up on the machine; nothing is changed outside the
folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

_LLVM = 15  # of libclc
_AMD_LLVM = 19  # near the drivers'; clang 15 has half of the registers of gfx11
_PACKAGES = (
    f"clang-{_AMD_LLVM} libclang-cpp{_AMD_LLVM} libclang-common-{_AMD_LLVM}-dev "
    f"libclang1-{_AMD_LLVM} lld-{_AMD_LLVM} libllvm{_AMD_LLVM} "
    f"clang-{_LLVM} libclang-cpp{_LLVM} libclang-common-{_LLVM}-dev libclang1-{_LLVM} lld-{_LLVM} "
    f"llvm-{_LLVM} libllvm{_LLVM} llvm-{_LLVM}-runtime libclc-{_LLVM} libclc-{_LLVM}-dev "
    "rocm-device-libs intel-opencl-icd libigc1 libigdfcl1 libigdgmm12 libllvmspirvlib14 "
    "libopencl-clang14 libclang-cpp14 libllvm14 ocl-icd-libopencl1 libz3-4 libedit2 "
    "oclgrind liboclgrind-21.10 libclang-common-14-dev"
).split()
_WHEELS = ("nvidia-cuda-nvcc", "nvidia-cuda-nvdisasm")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# rocm-device-libs of Debian 12 has no row for these processors; one of the same generation serves.
_ISA_VERSIONS = {"1100": "1030", "942": "940"}


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    unpack(folder)
    print(f"export GPU_ROOT={folder / 'root'} GPU_VENV={folder / 'venv'}")
    return 0


def unpack(folder: Path) -> None:
    """Fills the folder. Raises `CalledProcessError` where apt-get, dpkg or pip does not succeed."""
    packages, root, venv = folder / "packages", folder / "root", folder / "venv"
    for needed in (packages, root):
        needed.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", *_PACKAGES], cwd=packages, check=True)
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    libraries = root / _LIBRARIES
    # Intel's disassembler is asked for by the name that a development package would give it.
    link = libraries / "libiga64.so"
    if not link.exists():
        link.symlink_to("libiga64.so.1")
    for newer, known in _ISA_VERSIONS.items():
        made, like = (
            libraries / f"amdgcn/bitcode/oclc_isa_version_{version}.bc"
            for version in (newer, known)
        )
        if not made.exists():
            shutil.copy(like, made)
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin/python"), "-m", "pip", "install", "-q", *_WHEELS], check=True)


if __name__ == "__main__":
    sys.exit(main())
