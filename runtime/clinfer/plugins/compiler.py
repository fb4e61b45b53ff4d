"""What every plugin does on a miss: graph -> passes -> plan; and the key fields of a device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cache.content import RACY_NS
from clinfer.cache.record import FieldValue, KeyRecord
from clinfer.errors import ModelError
from clinfer.log import Log
from clinfer.properties import SETTABLE
from clinfer.sha256 import sha256
from clinfer_kernels.dims import TooComplex
from clinfer_kernels.player import ENTRY, player_text

if TYPE_CHECKING:
    from clinfer.cache.store import Store
    from clinfer.device.lock import Described
    from clinfer.graph.ir import Graph
    from clinfer.graph.model import Model
    from clinfer.lowering.choose import KernelChoice
    from clinfer.lowering.content import Draft
    from clinfer.lowering.plan import Plan, Program
    from clinfer.plugins.base import Source
    from clinfer.plugins.tuning import Look
    from clinfer_kernels.spec import Target

_LOG = Log("clinfer.plugins")
_FIX = "give the inputs fixed shapes with reshape"
_INTEL_ALIGNMENT = 512  # as constants have it in a blob
_GENERATING = ("graph", "lowering", "operators", "passes")
_SOURCES = (".py", ".cl", ".json")
PROGRAM_FORMAT = 1
_generator: list[str] = []  # the digest, once it is known


def plan_model(
    model: Model,
    device: Described,
    look: Look | None = None,
    in_place: bool = False,
    refused: frozenset[str] = frozenset(),
) -> Plan:
    """The plan of a model for a device; nothing is built yet.

    `look` gives tuning data by their key, where there are any for the model's problems. With
    `in_place` weights may lie in files of the model (`Draft.finish`). `refused` are the digests of
    programs that the driver did not build: where there is another way, it is taken.
    """
    return finished(draft_model(model, device, look, refused), device, in_place)


def finished(draft: Draft, device: Described, in_place: bool = False) -> Plan:
    """The plan of a draft for a device, with its constants as the driver wants them."""
    start = time.perf_counter()
    plan = draft.finish(_alignment(device), in_place)
    _LOG.debug(
        "%s: constants made in %.2f s; %d launches of %d programs, %d host steps, "
        "%d bytes of weights",
        device.info.name,
        time.perf_counter() - start,
        len(list(plan.launches)),
        len(plan.programs),
        len(list(plan.host_steps)),
        sum(int(constant.nbytes) for constant in plan.constants),
    )
    return plan


def _alignment(device: Described) -> int:
    """What constants must be aligned to, in bytes, for the driver to use them where they lie.

    Intel's CPU runtime copies what is not; PoCL takes any.
    """
    return _INTEL_ALIGNMENT if device.target.dialect == "intel_cpu" else 1


def draft_model(
    model: Model,
    device: Described,
    look: Look | None = None,
    refused: frozenset[str] = frozenset(),
) -> Draft:
    """As `plan_model`, but no constant is made yet; the graph is gone, with what it folded."""
    start = time.perf_counter()
    try:
        draft = _drafted(optimised(model, device), device, look, refused)
    except TooComplex as error:
        raise ModelError(f"the model cannot be compiled for free sizes: {error}; {_FIX}") from error
    _LOG.debug("planned for %s in %.2f s", device.info.name, time.perf_counter() - start)
    return draft


def host_nodes(model: Model, device: Described) -> set[str]:
    """The nodes, as they describe themselves, that have no kernel on a device."""
    return {step.label for step in draft_model(model, device).plan.host_steps}


def _drafted(graph: Graph, device: Described, look: Look | None, refused: frozenset[str]) -> Draft:
    draft, first = draft_graph(graph, device, {}, refused)
    if look is not None and first.problems:
        from clinfer.plugins.tuning import choices

        found = choices(look(tuning_key(first, device)))
        if any(first.chosen[digest] != index for digest, index in found.items()):
            draft, _ = draft_graph(graph, device, found, refused)
    graph.forget_contents()
    return draft


def optimised(model: Model, device: Described) -> Graph:
    """The model's graph after all passes for a device."""
    from clinfer.passes.pipeline import optimise

    graph = model.graph()
    optimise(graph, cls=device.target.cls, features=device.target.features)
    return graph


def plan_graph(
    graph: Graph, device: Described, tuned: Mapping[str, int]
) -> tuple[Plan, KernelChoice]:
    """The plan of a graph after all passes, and the choices made; the graph stays as it is."""
    draft, choice = draft_graph(graph, device, tuned)
    return draft.finish(), choice


def draft_graph(
    graph: Graph,
    device: Described,
    tuned: Mapping[str, int],
    refused: frozenset[str] = frozenset(),
) -> tuple[Draft, KernelChoice]:
    """As `plan_graph`, with no constant made yet."""
    from clinfer.lowering.choose import KernelChoice
    from clinfer.lowering.lower import lower

    choice = KernelChoice(tuned, refused)
    draft = lower(graph, device.target, choice)
    if plays(draft.plan, device):
        draft.plan = with_player(draft.plan, device.target)
    return draft, choice


def plays(plan: Plan, device: Described) -> bool:
    """Whether the plan can be run by the player: by its launches, and by what the driver gives."""
    return device.info.plays and all(launch.is_playable for launch in plan.launches)


def with_player(plan: Plan, target: Target) -> Plan:
    """The plan with the player among its programs."""
    from clinfer.lowering.plan import Program

    return replace(plan, programs=(*plan.programs, Program(ENTRY, player_text(target), "")))


def tuning_key(choice: KernelChoice, device: Described) -> KeyRecord:
    """The key of the tuning data for all problems that a choice was asked for."""
    from clinfer.plugins.tuning import tuning_record

    return tuning_record(choice.problems, device, device_fields(device))


def device_fields(device: Described) -> dict[str, FieldValue]:
    """The fields of a key that name a device and its driver."""
    info = device.info
    return {
        "device": info.full_name,
        "device_version": info.device_version,
        "driver": info.driver_version,
        "platform": info.platform,
        "platform_version": info.platform_version,
        "processor": info.processor,
    }


def content_fields(
    source: Source, device: Described, properties: Mapping[str, Any]
) -> dict[str, FieldValue]:
    """The fields of a key that name what is compiled, how, and for which device."""
    return {
        "model": source.digest or "",
        "shapes": source.shapes,
        **({"extensions": source.extensions.digest} if source.extensions else {}),
        **compile_fields(device, properties),
        **device_fields(device),
    }


def content_record(
    kind: str, form: int, source: Source, device: Described, properties: Mapping[str, Any]
) -> KeyRecord:
    """The key of what is made of a model: of that kind and format, and `content_fields`."""
    fields = {"format": form, **content_fields(source, device, properties)}
    return KeyRecord.make(kind, list(fields.items()))


def compile_fields(device: Described, properties: Mapping[str, Any]) -> dict[str, FieldValue]:
    """The fields of a key that name how a graph becomes sources."""
    chosen = {name: str(properties[name]) for name, p in SETTABLE.items() if p.compiles}
    return {
        "generator": generator_digest(),
        "target": sha256(repr(_ordered(device.target)).encode()).hexdigest(),
        **{name.lower(): value for name, value in chosen.items()},
    }


def program_record(program: Program, device: Described) -> KeyRecord:
    """The key of one program's binary."""
    fields: dict[str, FieldValue] = {
        "format": PROGRAM_FORMAT,
        "entry": program.entry,
        "source": program.digest,
        "options": program.options,
        **device_fields(device),
    }
    return KeyRecord.make("program", list(fields.items()))


def recall_generator(memo: Store) -> None:
    """Lets `generator_digest` be known from a memo, where none of its files has changed since.

    Reading 200 files takes longer than what else a warm start does in Python. The memo's key is
    made of the files' names, sizes, times and inodes (`clinfer.cache.content` tells why).
    """
    if _generator:
        return
    before = time.time_ns()
    states = []
    newest = 0
    for base, name in _generating_files():
        status = os.stat(os.path.join(base, name))  # noqa: PTH116, PTH118
        fields = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        states.append(f"{name}\0{fields}\n")
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
    files = sha256("".join(states).encode()).hexdigest()
    record = KeyRecord.make("generator", [("format", 1), ("files", files)])
    entry = memo.recall(record)
    known = b"" if entry is None else bytes(entry.sections.get("memo", b""))
    if len(known) == sha256().digest_size:
        _generator.append(known.hex())
    elif newest < before - RACY_NS:
        memo.remember(record, {"memo": bytes.fromhex(generator_digest())})


def generator_digest() -> str:
    """SHA-256 over the code that turns graphs into sources: other code, other programs.

    The release of onnx is a part of it.

    Files in order of their path below the two packages; paths of the machine do not enter.
    """
    if not _generator:
        from hashlib import sha256

        digest = sha256()
        for base, name in _generating_files():
            digest.update(name.encode() + b"\0")
            digest.update(sha256(Path(base, name).read_bytes()).digest())
        _generator.append(digest.hexdigest())
    return _generator[0]


def _generating_files() -> list[tuple[str, str]]:
    """(folder of a package, path of a file below it with '/'), in order."""
    import clinfer_kernels

    runtime = Path(__file__).resolve().parent.parent
    kernels = Path(str(clinfer_kernels.__file__)).resolve().parent
    found: list[tuple[str, str]] = []
    for base, folders in ((str(runtime), _GENERATING), (str(kernels), ("",))):
        names = (name for folder in folders for name in _sources_below(base, folder))
        found += [(base, name) for name in sorted(names, key=lambda name: name.split("/"))]
    return [*found, *_onnx_version()]


def _onnx_version() -> list[tuple[str, str]]:
    """The file that says which release of onnx is installed, whose functions' bodies are compiled.

    It is found without importing onnx, which takes longer than the rest of a warm start.
    """
    spec = find_spec("onnx")
    if spec is None or spec.origin is None:
        return []
    base = os.path.dirname(os.path.dirname(spec.origin))  # noqa: PTH120
    releases = [n for n in os.listdir(base) if n.startswith("onnx-") and n.endswith(".dist-info")]  # noqa: PTH208
    return [(base, f"{name}/METADATA") for name in sorted(releases)]


def _sources_below(base: str, folder: str) -> Iterator[str]:
    with os.scandir(os.path.join(base, folder)) as entries:  # noqa: PTH118
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.endswith(_SOURCES):
                yield name
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _sources_below(base, name)


def _ordered(target: Any) -> list[tuple[str, Any]]:
    """A target's fields with sets in order, so that their text is the same in every process."""
    values = target._asdict().items()
    return [(k, sorted(v) if isinstance(v, frozenset) else v) for k, v in sorted(values)]
