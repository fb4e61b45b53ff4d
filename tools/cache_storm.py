"""Many processes on one empty cache, half of them killed: answers, damage and builds are counted.

    python tools/cache_storm.py [MODEL] [--device CPU GPU] [--processes 16] [--rounds 20] [--seed 0]

In each round the cache is empty; all processes compile the model and run it. Half of them get
SIGKILL at random moments within the time one takes. Of the others every answer must have the bits
of a run without a cache, each program may be built at most twice, the cache must hold no damaged
entry, and all build workers must end. Exit code 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bitflips import DIGITS, environment

CHILD = """
import hashlib, json, sys
sys.stdin.read(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bitflips import answer, sample
import clinfer
model = Path(sys.argv[2])
bits, compiled = answer(model, sys.argv[3], sys.argv[4], sample(model))
print(json.dumps([hashlib.sha256(bits).hexdigest(), compiled.programs_built]), flush=True)
"""
MOST_BUILDS = 2
_PATIENCE = 120.0


@dataclass
class Found:
    """What a number of rounds came to."""

    rounds: int = 0
    survivors: int = 0
    killed: int = 0
    most_builds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Runs the rounds on each device, prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=DIGITS)
    parser.add_argument("--device", nargs="+", choices=("CPU", "GPU"), default=["CPU", "GPU"])
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for device in options.device:
        found = storm(options.model, device, options.processes, options.rounds, options.seed)
        print(
            f"{device}: {found.rounds} rounds, {found.survivors} survivors, {found.killed} killed, "
            f"at most {found.most_builds:g} builds of all programs in a round, "
            f"{len(found.wrong)} faults"
        )
        for line in found.wrong:
            print(f"  {line}")
        bad += len(found.wrong)
    return 1 if bad else 0


def storm(model: Path, device: str, processes: int, rounds: int, seed: int) -> Found:
    """`rounds` rounds with new caches."""
    picker = random.Random(seed)
    found = Found()
    with tempfile.TemporaryDirectory(prefix="clinfer-storm-") as folder:
        base = Path(folder)
        started = time.monotonic()
        alone = start(model, device, base / "alone", base / "driver-alone")
        right, programs = json.loads(release(alone))
        seconds = time.monotonic() - started
        for number in range(rounds):
            cache = base / str(number)
            children = [
                start(model, device, cache, base / f"driver-{number}-{i}") for i in range(processes)
            ]
            one_round(found, children, seconds, picker, right, programs)
            found.wrong += damage(cache)
            found.wrong += orphans(str(base))
            found.rounds += 1
    return found


def one_round(
    found: Found,
    children: list[subprocess.Popen[str]],
    seconds: float,
    picker: random.Random,
    right: str,
    programs: int,
) -> None:
    """Lets all start at once, kills every second one within twice `seconds`."""
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    victims = children[::2]
    moments = sorted(picker.uniform(0.0, 2 * seconds) for _ in victims)
    begin = time.monotonic()
    for victim, moment in zip(victims, moments, strict=True):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        victim.send_signal(signal.SIGKILL)
        found.killed += victim.wait() == -signal.SIGKILL
    built = 0
    for child in children[1::2]:
        assert child.stdout is not None
        text = child.stdout.read()
        if child.wait(_PATIENCE) != 0:
            found.wrong.append(f"a survivor ended with {child.returncode}")
            continue
        bits, own = json.loads(text.splitlines()[-1])
        built += own
        found.survivors += 1
        if bits != right:
            found.wrong.append("a survivor has other bits")
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    found.most_builds = max(found.most_builds, built / programs)
    if built > MOST_BUILDS * programs:
        found.wrong.append(f"{built} builds of {programs} programs in one round")


def start(model: Path, device: str, cache: Path, driver: Path) -> subprocess.Popen[str]:
    """A process that waits for its input to end, with a driver's cache of its own."""
    driver.mkdir(parents=True)
    tools = str(Path(__file__).resolve().parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, tools, str(model), device, str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment(), "POCL_CACHE_DIR": str(driver)},
        text=True,
    )


def release(child: subprocess.Popen[str]) -> str:
    """Lets a process run; its last line."""
    return child.communicate()[0].splitlines()[-1]


def damage(cache: Path) -> list[str]:
    """What is wrong with the entries that are left."""
    from clinfer.cache import Store

    return [f"{problem}" for problem in Store(cache, readonly=True).verify()]


def orphans(mark: str) -> list[str]:
    """Processes with `mark` in their environment that outlive those that started them."""
    end = time.monotonic() + 10.0
    while (left := _having(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return [f"process {number} outlives its starter" for number in left]


def _having(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            inside = mark.encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if inside and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
