"""The programs that a seed layer holds: what models and operators need, on machines of any size.

A text holds no sizes, but which text is chosen depends on them, on the number of cores, the caches
and the maker of the processor. So each model is planned as it is, with a free batch and with the
sizes of its sample inputs, for each of a few machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clinfer import Core
from clinfer.cache.content import file_root, file_states
from clinfer.cache.layers import Layers
from clinfer.cache.record import KeyRecord
from clinfer.cache.store import Store
from clinfer.device.cpu_target import CpuTarget
from clinfer.device.discover import Device, DeviceInfo
from clinfer.device.lock import LockedDevice
from clinfer.errors import ClinferError
from clinfer.graph.model import Model
from clinfer.lowering.plan import Program
from clinfer.models import Models, external_names
from clinfer.plugins import drafts
from clinfer.plugins.compiler import draft_model
from clinfer.plugins.seed import aimed
from clinfer.settings import Settings
from conformance_cases import Cases

# (maker, cores, bytes of cache per core): a laptop, servers' shares, whole servers.
MACHINES = (
    ("GenuineIntel", 2, 1 << 20),
    ("GenuineIntel", 8, 2 << 20),
    ("GenuineIntel", 32, 2 << 20),
    ("AuthenticAMD", 2, 512 << 10),
    ("AuthenticAMD", 32, 1 << 20),
    ("AuthenticAMD", 8, 256 << 10),
)
BATCH = 8

Programs = dict[str, Program]
"""By digest."""


def machines(info: DeviceInfo) -> list[LockedDevice]:
    """A target's device as machines have it: makers, cores, caches."""
    return [
        LockedDevice(info._replace(vendor=vendor, compute_units=units, local_mem=memory))
        for vendor, units, memory in MACHINES
    ]


def of_model(core: Core, path: Path, devices: list[LockedDevice]) -> Programs:
    """What a model needs on any of the devices."""
    found: Programs = {}
    for model in _forms(core, path):
        for device in devices:
            found |= _planned(model, device)
    return found


def of_operators(core: Core, count: int, devices: list[LockedDevice]) -> Programs:
    """What so many of ONNX's test cases need, those of each operator first."""
    cases = Cases()
    found: Programs = {}
    for name in cases.sample(count):
        given = cases.model(name)
        try:
            model = core.read_model(given if isinstance(given, Path) else given.SerializeToString())
            for device in devices:
                found |= _planned(model, device)
        except ClinferError:  # the few cases that are not supported
            continue
    return found


class Known(NamedTuple):
    """What a start of this machine takes for a model as it is.

    `content` are the sections of the entry `record`, None where the draft cannot be kept.
    `external` names the files beside the model, whose own tree hash is `root`.
    """

    programs: Programs
    record: KeyRecord
    content: dict[str, Any] | None
    root: bytes
    external: list[str]


def known(path: Path, level: CpuTarget, device: Device, scratch: Path) -> Known:
    """Lowers a model for this machine's own device. Raises `ClinferError`."""
    source = Models().source(path, Layers(Store(scratch)))
    plan, content = drafts.make(source, device)
    record = drafts.draft_record(
        source, aimed(device, level), Settings().effective(device.info.name, None)
    )
    external = external_names(source.read())
    (state,) = file_states(path)
    root = file_root(path.absolute(), state)
    return Known({p.digest: p for p in plan.programs}, record, content, root, external)


def _planned(model: Model, device: LockedDevice) -> Programs:
    return {program.digest: program for program in draft_model(model, device).plan.programs}


def _forms(core: Core, path: Path) -> Iterator[Model]:
    """The model as it is, for any batch, for a larger one, and for the sizes of its sample."""
    yield core.read_model(path)
    for batch in (-1, BATCH):
        model = core.read_model(path)
        shapes = [[batch, *_sizes(port)[1:]] for port in model.inputs]
        if _reshaped(model, dict(enumerate(shapes))):
            yield model
    sample = path.with_suffix(".npz")
    if sample.is_file():
        with np.load(sample) as arrays:
            given = {k[3:]: list(v.shape) for k, v in arrays.items() if k.startswith("in:")}
        model = core.read_model(path)
        if any(-1 in _sizes(port) for port in model.inputs) and _reshaped(model, given):
            yield model


def _sizes(port: Any) -> list[int]:
    """A port's dimensions; -1 where one is free."""
    return [d.get_length() if d.is_static else -1 for d in port.partial_shape]


def _reshaped(model: Model, shapes: dict[Any, list[int]]) -> bool:
    """Whether the graph takes the shapes; a reshape to a constant batch does not."""
    try:
        model.reshape(shapes)
    except ClinferError:
        return False
    return True
