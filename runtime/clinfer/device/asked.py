"""What a user's name of devices stands for: 'GPU', 'AUTO:-CPU', 'MULTI:GPU(4),CPU'."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clinfer.device.opencl import INSTALL
from clinfer.device.quirks import quirks_of
from clinfer.device.target import derive_target
from clinfer.errors import DeviceError
from clinfer.names import MODES, mode_of

if TYPE_CHECKING:
    from clinfer.device.discover import DeviceInfo

_LANES = {"nvidia": 128, "amd": 64, "intel": 8}


class Asked(NamedTuple):
    """The devices that a user's name stands for, best first; `mode` is '' for one and no more.

    `counts` are the numbers in brackets, 0 where there is none: 'MULTI:GPU(4),CPU' has (4, 0).
    """

    mode: str
    devices: tuple[str, ...]
    counts: tuple[int, ...] = (0,)


def asked_of(name: str, there: list[DeviceInfo]) -> Asked:
    """The devices, of those that are there, that a name stands for. Raises `DeviceError`."""
    mode = mode_of(name)
    if mode not in MODES:
        return Asked("", (_known(name.strip(), there, name),))
    rest = name.upper().partition(":")[2]
    listed_ones = [part.strip() for part in rest.split(",") if part.strip()]
    without = [part[1:] for part in listed_ones if part.startswith("-")]
    wanted = [_counted(part, name) for part in listed_ones if not part.startswith("-")]
    names = [info.name for info in there]
    if not wanted:
        wanted = [(info.name, 0) for info in sorted(there, key=_capability)]
    elif mode == "AUTO":
        wanted = [pair for pair in wanted if any(is_named(n, pair[0]) for n in names)]
    pairs = {_known(asked, there, name): count for asked, count in wanted}
    for known in [n for n in pairs if any(is_named(n, w) for w in without)]:
        del pairs[known]
    if not pairs:
        raise _no_device(name, there)
    if mode == "BATCH" and len(pairs) > 1:
        raise DeviceError(f"{name!r}: BATCH runs on one device: name it, say 'BATCH:GPU(8)'")
    plain = len(pairs) == 1 and mode != "BATCH"
    return Asked("" if plain else mode, tuple(pairs), tuple(pairs.values()))


def _counted(part: str, name: str) -> tuple[str, int]:
    """'GPU(4)' is ('GPU', 4). Raises `DeviceError` where no number from 1 is in the brackets."""
    device, opened, rest = part.partition("(")
    if not opened:
        return device, 0
    number = rest.removesuffix(")").strip()
    if not rest.endswith(")") or not number.isdecimal() or int(number) < 1:
        raise DeviceError(f"{name!r}: expected a number from 1 in brackets, say 'GPU(4)'")
    return device.strip(), int(number)


def _known(wanted: str, there: list[DeviceInfo], name: str) -> str:
    """Our name of a device that is meant. Raises `DeviceError` where it is not there."""
    found = next((info.name for info in there if is_named(info.name, wanted.upper())), None)
    if found is None:
        raise _no_device(name, there)
    return found


def _no_device(name: str, there: list[DeviceInfo]) -> DeviceError:
    names = ", ".join(info.name for info in there)
    hint = f"; {INSTALL}" if name.upper() in ("CPU", "GPU") else ""
    return DeviceError(f"there is no device {name!r}; devices here: {names}{hint}")


def _capability(info: DeviceInfo) -> tuple[bool, bool, int, int]:
    """Sorts devices, the most capable first; of CPU runtimes the order stays.

    float32 lanes are compute units times those of what the vendor calls a compute unit: a
    multiprocessor (NVIDIA), a compute unit (AMD), a vector engine (Intel).
    """
    is_gpu = info.name.startswith("GPU")
    vendor = derive_target(info, quirks_of(info.platform, info.platform_version)).vendor
    lanes = info.compute_units * _LANES.get(vendor, 16) if is_gpu else 0
    return info.is_simulated, not is_gpu, -lanes, -info.global_mem if is_gpu else 0


def is_named(name: str, wanted: str) -> bool:
    """Whether a device is meant by a name in capitals: 'GPU' is the first GPU, and 'GPU.0' too."""
    return name.removesuffix(".0") == wanted.removesuffix(".0")
