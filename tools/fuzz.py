"""Fuzzes the readers of cache entries, blobs, packs and indexes.

    python tools/fuzz.py                          every reader, a minute each
    python tools/fuzz.py pack index --seconds 600
    python tools/fuzz.py pack --replay FILE ...   inputs that failed before
    python tools/fuzz.py models --cases 20000     models and inputs, read, compiled, run: an hour

With atheris installed (pip install atheris) coverage guides the mutations, each reader in a process
of its own; without it (or with --plain) known-good files are mutated at random. Half of the inputs
get fitting digests and signatures after the mutation, so that what lies behind these is reached
too. An input fails if a reader raises anything but a clinfer error; it is then written to --output,
and the exit code is 1. Memory is limited, so that a reader that believes a length shows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in ("tools", "kernels", "runtime"):
    sys.path.insert(0, str(ROOT / folder))

MODELS = "models"
MEMORY = 4 * 2**30
MOST_BYTES = 65536
INTERESTING = (0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 4096, 2**15, 2**16, 2**31, 2**32, 2**63)
TOKENS = [b'"', b"[", b"]", b"{", b"}", b",", b":", b"null", b"true", b"-1", b"1e9", b"NaN", b"\\u"]


def main() -> int:
    from fuzz_targets import TARGETS

    names = [*TARGETS, MODELS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", metavar="READER", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--output", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE")
    models = parser.add_argument_group(f"{MODELS}", "not among the readers fuzzed by default")
    models.add_argument("--cases", type=int, help="how many, instead of --seconds")
    models.add_argument("--first", type=int, default=0, metavar="N", help="number of the first")
    models.add_argument("--jobs", type=int, default=2, help="worker processes")
    models.add_argument("--limit", type=float, default=120.0, help="seconds for a case")
    models.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "clinfer-fuzz"))
    options = parser.parse_args()
    unknown = set(options.target) - set(names)
    if unknown:
        parser.error(f"no reader {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = options.target or list(TARGETS)
    if MODELS in chosen:
        if chosen != [MODELS]:
            parser.error(f"{MODELS} goes alone")
        return whole_runs(options)
    if options.replay:
        return replay(chosen, options.replay)
    if not options.plain and has_atheris():
        return in_processes(chosen, options)
    limit_memory()
    failed = [name for name in chosen if not plain(name, options)]
    return 1 if failed else 0


def whole_runs(options: argparse.Namespace) -> int:
    """The target that is no reader: see `fuzz_models`."""
    import fuzz_models

    if options.replay:
        return 0 if fuzz_models.replay(options.replay) else 1
    if options.cases is None:
        options.cases = 1 << 60
    else:
        options.seconds = float("inf")
    return 0 if fuzz_models.fuzz(options) else 1


def has_atheris() -> bool:
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def limit_memory() -> None:
    """Holds this process to MEMORY bytes of address space, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def try_one(name: str, data: bytes) -> BaseException | None:
    """What a reader raised that it must not raise, None where all is well."""
    from clinfer.errors import ClinferError
    from fuzz_targets import TARGETS

    try:
        TARGETS[name].read(data)
    except ClinferError:
        return None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return error
    return None


def replay(names: Sequence[str], files: Sequence[Path]) -> int:
    failures = 0
    for name in names:
        for file in files:
            error = try_one(name, file.read_bytes())
            failures += error is not None
            print(f"{name} {file}: {'fine' if error is None else repr(error)}")
            if error is not None:
                traceback.print_exception(error)
    return 1 if failures else 0


def plain(name: str, options: argparse.Namespace) -> bool:
    """Mutates a reader's seeds at random for a while; whether nothing failed."""
    from fuzz_targets import TARGETS

    target = TARGETS[name]
    generator = random.Random(options.seed)
    seeds = target.seeds()
    for seed in seeds:
        target.read(seed)
    end = time.monotonic() + options.seconds
    tried = 0
    while time.monotonic() < end:
        data = mutated(generator, seeds)
        if generator.random() < 0.5:
            data = target.repair(data)
        error = try_one(name, data)
        tried += 1
        if error is not None:
            keep(name, data, error, options.output)
            return False
    print(f"{name}: {tried} inputs, nothing failed", flush=True)
    return True


def keep(name: str, data: bytes, error: BaseException, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{time.time_ns()}"
    path.write_bytes(data)
    print(f"{name}: failed, see {path}", file=sys.stderr)
    traceback.print_exception(error)


def mutated(generator: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to eight changes."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 8)):
        generator.choice(CHANGES)(generator, data, seeds)
    return bytes(data[:MOST_BYTES])


def _flip(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def _number(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A little-endian integer of 1 to 8 bytes replaced."""
    size = generator.choice((1, 2, 4, 8))
    if len(data) < size:
        return
    at = generator.randrange(len(data) - size + 1)
    value = generator.choice(INTERESTING) + generator.choice((-1, 0, 0, 1))
    data[at : at + size] = (value % 256**size).to_bytes(size, "little")


def _cut(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = generator.randrange(len(data) + 1)
    del data[start : start + generator.choice((1, 8, 512, len(data)))]


def _repeat(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = generator.randrange(len(data) + 1)
    part = data[start : start + generator.choice((1, 16, 84, 512))]
    data[start:start] = part * generator.choice((1, 2, 50))


def _insert(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = generator.randrange(len(data) + 1)
    data[at:at] = generator.choice([*TOKENS, generator.randbytes(generator.randint(1, 40))])


def _splice(generator: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = generator.choice(seeds)
    data[generator.randrange(len(data) + 1) :] = other[generator.randrange(len(other) + 1) :]


def _digits(generator: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A decimal number in a text replaced."""
    places = [i for i, byte in enumerate(data[:MOST_BYTES]) if 48 <= byte <= 57]
    if places:
        at = generator.choice(places)
        data[at : at + 1] = str(generator.choice(INTERESTING)).encode()


CHANGES = (_flip, _flip, _number, _number, _cut, _repeat, _insert, _splice, _digits)


def scratch() -> str | None:
    """A folder in memory, where the system has one."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


def in_processes(names: Sequence[str], options: argparse.Namespace) -> int:
    """Each reader under atheris, which ends its process."""
    failed = []
    with tempfile.TemporaryDirectory(dir=scratch()) as place:
        environment = {**os.environ, "TMPDIR": place}
        for name in names:
            command = [sys.executable, __file__, "--under-atheris", name]
            command += [str(options.seconds), str(options.seed), str(options.output)]
            if subprocess.run(command, env=environment, check=False).returncode:
                failed.append(name)
    print(f"failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def under_atheris(name: str, seconds: str, seed: str, output: str) -> None:
    """Fuzzes one reader, guided by the coverage of clinfer's code; does not return."""
    import atheris

    with atheris.instrument_imports(include=["clinfer"]):
        from clinfer.errors import ClinferError
        from fuzz_targets import TARGETS, folder
    target = TARGETS[name]
    corpus = folder() / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(content)
    Path(output).mkdir(parents=True, exist_ok=True)

    def once(data: bytes) -> None:
        with contextlib.suppress(ClinferError):
            target.read(data)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        changed = bytes(atheris.Mutate(data, most))
        return target.repair(changed)[:most] if number % 2 else changed

    arguments = [
        sys.argv[0],
        f"-max_total_time={int(float(seconds))}",
        f"-seed={int(seed) + 1}",
        f"-max_len={MOST_BYTES}",
        f"-rss_limit_mb={MEMORY >> 20}",
        f"-artifact_prefix={output}/{name}-",
        "-verbosity=0",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(arguments, once, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--under-atheris"]:
        under_atheris(*sys.argv[2:])
    sys.exit(main())
