"""Decoding with a cache that grows: milliseconds a token, clinfer and ONNX Runtime in one run.

    python tools/bench_decode.py decoder_model_merged.onnx [--prompt 8] [--tokens 64] [--rounds 3]

The model's inputs are known by their names, as optimum, transformers and onnxruntime-genai give
them: `past...` and the outputs `present...` in the same order, masks, positions, ids of tokens,
`use_cache_branch`; others are random. A prompt is run once, then one token at a time, so that every
call has sizes that no call had before; of the rounds, in turn, the least median counts. The tokens
are random ones: what is compared at the end are the scores of the last.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

import clinfer

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]
_ENCODED = 64  # places of an encoder's results


class Port(NamedTuple):
    """An input as ONNX Runtime describes it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    @property
    def is_cache(self) -> bool:
        """Whether it takes what an earlier call gave."""
        return "past" in self.name and self.dtype.kind == "f" and len(self.shape) > 2


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--prompt", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'ms a token':<40}{'clinfer':>10}{'ONNX R.':>10}{'ratio':>8}  difference")
    for path in options.models:
        report(path, options)


def report(path: Path, options: argparse.Namespace) -> None:
    """One model's line."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results = [port.name for port in session.get_outputs()]
    ports = [Port(port.name, _dtype(port.type), tuple(port.shape)) for port in session.get_inputs()]
    compiled = clinfer.Core().compile_model(path, "CPU")

    def ours(feed: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(results, map(np.asarray, compiled(dict(feed)).to_tuple()), strict=True))

    def theirs(feed: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(results, session.run(None, dict(feed)), strict=True))

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    last: dict[str, np.ndarray] = {}
    for _ in range(options.rounds):
        for name, run in (("ours", ours), ("theirs", theirs)):
            seconds, last[name] = decode(ports, results, run, options.prompt, options.tokens)
            times[name].append(seconds)
    a, b = (min(times[name]) * 1e3 for name in ("ours", "theirs"))
    away = np.abs(last["ours"].astype(float) - last["theirs"]).max()
    print(f"{path.parent.name + '/' + path.stem:<40}{a:>10.3f}{b:>10.3f}{a / b:>8.2f}  {away:.1e}")


def decode(
    ports: list[Port], results: list[str], run: Run, prompt: int, tokens: int
) -> tuple[float, np.ndarray]:
    """The median seconds of a token, and the scores of the last."""
    random = np.random.default_rng(3)
    caches = [port for port in ports if port.is_cache]
    presents = [name for name in results if "present" in name]
    fixed = {port.name: random.standard_normal(_sizes(port, 1, 0)) for port in ports}
    state = {port.name: np.zeros(_sizes(port, 1, 0), port.dtype) for port in caches}
    seconds: list[float] = []
    past, scores = 0, np.zeros(0)
    for turn in range(tokens + 1):
        new = prompt if turn == 0 else 1
        feed = {p.name: _value(p, new, past, fixed, random) for p in ports} | state
        start = time.perf_counter()
        found = run(feed)
        seconds.append(time.perf_counter() - start)
        for port, name in zip(caches, presents, strict=True):
            if found[name].size:  # of an encoder's the first call gives them, others nothing
                state[port.name] = found[name]
        past += new
        scores = found[results[0]]
    return statistics.median(seconds[1:]), scores


def _value(
    port: Port, new: int, past: int, fixed: Arrays, random: np.random.Generator
) -> np.ndarray:
    """An input of the next call, which has `new` tokens after `past` earlier ones."""
    if port.dtype.kind == "b":
        return np.full(_sizes(port, new, past), past > 0)
    if port.dtype.kind == "f":
        return fixed[port.name].astype(port.dtype)
    if "mask" in port.name:
        is_encoder = "encoder" in port.name
        return np.ones((1, _ENCODED if is_encoder else past + new), port.dtype)
    if "position" in port.name:
        return np.arange(past, past + new, dtype=port.dtype).reshape(1, new)
    return random.integers(2, 100, _sizes(port, new, past)).astype(port.dtype)


def _sizes(port: Port, new: int, past: int) -> list[int]:
    """An input's sizes: one sample; dimensions are known by their names."""
    found = []
    for size in port.shape:
        if isinstance(size, int):
            found.append(size)
        elif "batch" in str(size):
            found.append(1)
        elif "past" in str(size):
            found.append(past)
        elif "encoder" in str(size):
            found.append(0 if port.is_cache and not past else _ENCODED)
        else:
            found.append(new)
    return found


def _dtype(text: str) -> np.dtype[Any]:
    """The dtype of ONNX Runtime's 'tensor(float16)'."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


if __name__ == "__main__":
    main()
