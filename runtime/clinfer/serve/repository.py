"""A folder of models in Triton's layout, and what `config.json` says of one.

    REPOSITORY/NAME/config.json       optional
    REPOSITORY/NAME/1/model.onnx      a number for each version

The names in `config.json` are those of Triton's model configuration where it has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinfer.errors import ModelError, PropertyError, listed
from clinfer.serve.refusals import NOT_FOUND, UNAVAILABLE, RefusedError

MODEL_FILE = "model.onnx"
_CONFIG_FILE = "config.json"
_FOREIGN_CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Group:
    """`count` instances on a device; '' stands for the server's own device."""

    device: str = ""
    count: int = 1


@dataclass(frozen=True)
class ModelConfig:
    """What `config.json` says. `max_batch` 0: requests run one by one, of any size."""

    max_batch: int = 0
    gathers: bool = False
    delay: float = 0.0
    max_queue: int | None = None
    groups: tuple[Group, ...] = (Group(),)
    versions: Callable[[Sequence[int]], list[int]] = field(default=lambda found: list(found[-1:]))
    preprocessing: Mapping[str, Any] | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


class Repository:
    """The models below a folder; it is looked at anew with each question."""

    def __init__(self, root: Path) -> None:
        """Raises `ModelError` where there is no such folder."""
        if not root.is_dir():
            raise ModelError(f"the repository '{root}' is no folder")
        self.root = root

    def names(self) -> list[str]:
        """The folders that have a version, and a name that can be printed.

        Raises `RefusedError` where the repository cannot be read.
        """
        try:
            shown = [p for p in self.root.iterdir() if not p.name.startswith(".")]
            named = [p for p in shown if p.name.isprintable()]  # the protocol has only those
            return sorted(p.name for p in named if p.is_dir() and self._numbers(p))
        except OSError as error:
            said = f"the repository cannot be read: {error.strerror}"
            raise RefusedError(UNAVAILABLE, said) from error

    def folder(self, name: str) -> Path:
        """A model's folder; what is asked for is compared with names, never made a path.

        Raises `RefusedError` where there is none.
        """
        if name not in self.names():
            raise RefusedError(NOT_FOUND, f"the repository has no model {name!r}")
        return self.root / name

    def files(self, name: str, config: ModelConfig) -> dict[int, Path]:
        """The model file of each version to be served. Raises `ModelError` where none is."""
        folder = self.folder(name)
        numbers = self._numbers(folder)
        wanted = config.versions(numbers)
        if not wanted or not set(wanted) <= set(numbers):
            raise ModelError(
                f"model '{name}': version_policy asks for {wanted or 'no version'}; "
                f"there are {numbers}"
            )
        return {number: folder / str(number) / MODEL_FILE for number in wanted}

    def config(self, name: str) -> ModelConfig:
        """What `config.json` says; the defaults where there is none. Raises `PropertyError`."""
        folder = self.folder(name)
        file = folder / _CONFIG_FILE
        if not file.exists():
            if (folder / _FOREIGN_CONFIG).exists():
                raise PropertyError(
                    f"model '{name}': {_FOREIGN_CONFIG} is not read: say the same in "
                    f"{_CONFIG_FILE} (docs/server.md)"
                )
            return ModelConfig()
        try:
            return parsed(json.loads(file.read_bytes()))
        except (OSError, ValueError, RecursionError, PropertyError) as error:
            raise PropertyError(f"model '{name}', {_CONFIG_FILE}: {error}") from error

    @staticmethod
    def _numbers(folder: Path) -> list[int]:
        found = [p for p in folder.iterdir() if p.name.isdecimal() and str(int(p.name)) == p.name]
        return sorted(int(p.name) for p in found if (p / MODEL_FILE).is_file())


def parsed(document: Any) -> ModelConfig:
    """A configuration from JSON. Raises `PropertyError` for a name or value that is not known."""
    top = _Fields("", document)
    batching = top.fields("dynamic_batching")
    policy = batching.fields("default_queue_policy")
    made = ModelConfig(
        max_batch=top.count("max_batch_size", 0),
        gathers="dynamic_batching" in top.values,
        delay=batching.count("max_queue_delay_microseconds", 0) / 1e6,
        max_queue=policy.count("max_queue_size", 0) or None,
        groups=tuple(map(_group, top.take("instance_group", list, []))) or (Group(),),
        versions=_version_policy(top.fields("version_policy")),
        preprocessing=top.take("preprocessing", dict, None),
        properties=top.take("properties", dict, {}),
    )
    for part in (policy, batching, top):
        part.require_empty()
    if made.gathers and made.max_batch < 2:
        raise PropertyError("dynamic_batching needs a max_batch_size of 2 or more")
    return made


class _Fields:
    """The fields of a JSON object; each is taken once, and none may be left."""

    def __init__(self, place: str, values: Any) -> None:
        self._place = place
        if not isinstance(values, dict):
            raise PropertyError(f"{place or 'the file'}: expected an object, found {values!r}")
        self.values = dict(values)
        self._left = set(self.values)

    def take(self, name: str, kind: type, default: Any) -> Any:
        self._left.discard(name)
        value = self.values.get(name, default)
        if value is not default and type(value) is not kind:
            raise PropertyError(f"{self._place}{name}: expected {kind.__name__}, found {value!r}")
        return value

    def count(self, name: str, default: int) -> int:
        value: int = self.take(name, int, default)
        if not 0 <= value < 2**31:
            raise PropertyError(f"{self._place}{name}: expected a count, found {value}")
        return value

    def fields(self, name: str) -> _Fields:
        return _Fields(f"{self._place}{name}.", self.take(name, dict, {}))

    def require_empty(self) -> None:
        if self._left:
            raise PropertyError(f"{self._place}{min(self._left)}: no such field")


def _group(given: Any) -> Group:
    fields = _Fields("instance_group.", given)
    group = Group(fields.take("device", str, ""), fields.count("count", 1))
    fields.require_empty()
    if not 1 <= group.count <= 64:
        raise PropertyError(f"instance_group.count: expected 1 to 64, found {group.count}")
    return group


def _version_policy(fields: _Fields) -> Callable[[Sequence[int]], list[int]]:
    if len(fields.values) > 1:
        raise PropertyError(f"version_policy: one of {listed(sorted(fields.values))} may be said")
    latest, every = fields.fields("latest"), fields.take("all", dict, None)
    specific = fields.fields("specific")
    chosen = specific.take("versions", list, [])
    number = latest.count("num_versions", 1) or 1
    for part in (latest, specific, fields):
        part.require_empty()
    # A number may be a text: so JSON has the 64 bits of Triton's configuration.
    if not all(type(item) in (int, str) and str(item).isdecimal() for item in chosen):
        raise PropertyError(f"version_policy.specific.versions: expected numbers, found {chosen}")
    if every is not None:
        return list
    return (
        (lambda found: sorted(map(int, chosen))) if chosen else lambda found: list(found[-number:])
    )
