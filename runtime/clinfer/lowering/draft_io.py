"""Drafts of plans (`clinfer.lowering.content`) as JSON: what each constant is made of, and how.

A constant is what `plan_dump.Kept` says, or a packing of one: ["packed", [its class, its fields],
the constant]. So a draft of a model whose weights lie in its files has next to no bytes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clinfer.errors import BlobError
from clinfer.lowering.content import Content, Draft
from clinfer.lowering.plan import Array, Plan
from clinfer.lowering.plan_dump import Kept, Place, document
from clinfer.lowering.plan_io import Files, Json, check, constant, read
from clinfer_kernels.byte_packings import BYTE_PACKINGS
from clinfer_kernels.packings import PACKINGS

_BY_NAME: dict[str, Any] = {packing.__name__: packing for packing in (*PACKINGS, *BYTE_PACKINGS)}


def dump_draft(
    draft: Draft, place: Callable[[Array], Place | None]
) -> tuple[bytes, list[Array]] | None:
    """The draft's JSON and the constants that lie in no file; None for a packing without a name."""
    kept = Kept(place)
    constants = []
    for content in draft.contents:
        source = kept.add(content.source)
        packing = None if content.apply is None else _named(content.apply)
        if content.apply is not None and packing is None:
            return None
        constants.append(source if packing is None else ["packed", packing, source])
    return document(draft.plan, constants), kept.chunks


def load_draft(text: bytes | memoryview, weights: memoryview, files: Files) -> Draft:
    """The draft back; sources of constants are windows on `weights` or `files`.

    Raises `BlobError` naming the part that is not as it should be, and what `files` raises.
    """
    plan = read(text, lambda value: _content(value, weights, files))
    contents: Any = plan.constants
    return _Loaded(replace(plan, constants=()), contents)


class _Loaded(Draft):
    """A draft from a file, whose plan is checked once it is whole."""

    def finish(self, alignment: int = 1, in_place: bool = False) -> Plan:
        plan = super().finish(alignment, in_place)
        check(plan)
        return plan


def _content(value: Json, weights: memoryview, files: Files) -> Content:
    if value[0] != "packed":
        return Content(constant(value, weights, files))
    _, (name, *fields), source = value
    packing = _BY_NAME[name]
    if len(fields) != len(packing._fields) or not all(map(_is_plain, fields)):
        raise BlobError(f"no packing: {[name, *fields]!r}")
    made = packing(*map(_as_tuple, fields))
    return Content(constant(source, weights, files), made.pack)


def _named(apply: Callable[[Array], Array]) -> Json | None:
    """A packing as JSON; None for what is none of the records."""
    owner = getattr(apply, "__self__", None)
    name = next((name for name, p in _BY_NAME.items() if isinstance(owner, p)), None)
    if owner is None or name is None or apply != owner.pack:
        return None
    return [name, *owner]


def _is_plain(value: Json) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, (int, str))


def _as_tuple(value: Json) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
