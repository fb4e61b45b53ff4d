"""The proof that a cache covers a model on a device: nothing is opened, built or run.

A plugin states which entries a compilation looks up (`Plugin.needs`); each is read whole, its
digests are checked, and the plugin looks at what it says. The device may be one that is described
in a lock file only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from clinfer.cache import coverage
from clinfer.cache.coverage import Gap
from clinfer.device.lock import Described
from clinfer.plugins.base import Plugin, Source
from clinfer.plugins.tuning import look_in

VERDICTS = ("complete", "incomplete", "incompatible", "untrusted")
"""From best to worst."""


@dataclass(frozen=True)
class Coverage:
    """How many entries a model needs on a device, and those that cannot be used."""

    needed: int
    gaps: tuple[Gap, ...]

    @property
    def verdict(self) -> str:
        """The worst of the gaps' verdicts; 'complete' where there is none."""
        return worst(gap.verdict for gap in self.gaps)

    def to_json(self) -> dict[str, Any]:
        """As plain data: each gap with its reason and the nearest entry's other fields."""
        return {
            "verdict": self.verdict,
            "needed": self.needed,
            "missing": len(self.gaps),
            "gaps": [_plain(gap) for gap in self.gaps],
        }


def prove(
    plugin: Plugin,
    source: Source,
    device: Described,
    properties: Mapping[str, Any],
    sources: Sequence[coverage.Source],
) -> Coverage:
    """What of a model's entries is in the stores and packs given.

    `source.digest` must be known. Raises `ModelError` and `UnsupportedError` as a compilation does.
    """
    look = look_in(sources)
    needed = plugin.needs(source, device, properties, look)
    flaw = partial(plugin.flaw, look=look)
    return Coverage(len(needed), tuple(coverage.gaps(needed, sources, flaw)))


def worst(verdicts: Any) -> str:
    """The worst of some verdicts; 'complete' where there are none."""
    return max(verdicts, key=VERDICTS.index, default="complete")


def _plain(gap: Gap) -> dict[str, Any]:
    near = gap.nearest
    differs = {} if near is None else {d.name: [d.here, d.there] for d in near.differences}
    return {
        "what": gap.what,
        "entry": gap.record.digest,
        "verdict": gap.verdict,
        "reason": str(gap.miss.reason),
        "detail": gap.miss.detail,
        "differs": differs,
    }
