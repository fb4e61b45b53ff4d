"""Drafts of plans as entries of a seed: what becomes of a model, without its weights.

A container of kind 'draft' with the sections

    plan       the draft as JSON (`clinfer.lowering.draft_io`); weights are places in the model's
               files, with the way each is packed
    weights    what lies in none of them: what passes have folded, and small constants
    tuning     as in `clinfer.plugins.plans`; lowering had none

It is useless without the model's file, and spares reading, passes and lowering. Where there are
tuning data by now, it is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clinfer.cache.record import KeyRecord
from clinfer.plugins.compiler import content_record, device_fields, draft_model

if TYPE_CHECKING:
    from clinfer.cache.entry import Entry
    from clinfer.device.lock import Described
    from clinfer.lowering.content import Draft
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.base import Source
    from clinfer.plugins.tuning import Look

KIND = "draft"
FORMAT = 1
MOST_BYTES = 4 << 20
"""Of what lies in no file of the model; a draft with more is not worth its room in a seed."""


def draft_record(source: Source, device: Described, properties: Mapping[str, Any]) -> KeyRecord:
    """The key of a model's draft: content, shapes, properties, generator, target, device."""
    return content_record(KIND, FORMAT, source, device, properties)


def make(source: Source, device: Described) -> tuple[Plan, dict[str, Any] | None]:
    """A plan without constants, lowered from the model, and an entry's content.

    There is none where a weight is packed in a way that has no name, or too much is in no file.
    """
    from clinfer.lowering.draft_io import dump_draft
    from clinfer.plugins.plans import places

    asked: list[KeyRecord] = []
    draft = draft_model(source.read(), device, asked.append)
    dumped = dump_draft(draft, places(source.files))
    if dumped is None or sum(chunk.nbytes for chunk in dumped[1]) > MOST_BYTES:
        return draft.plan, None
    text, weights = dumped
    tuning = json.dumps([asked[0].to_json() if asked else None, ""]).encode()
    return draft.plan, {"plan": text, "weights": weights, "tuning": tuning}


def load(entry: Entry, source: Source, device: Described, look: Look | None) -> Draft | None:
    """The draft in an entry; None where there are tuning data for the device.

    Raises `BlobError` for one of another form, `ModelError` where a file of the model is not as it
    was digested.
    """
    from clinfer.lowering.draft_io import load_draft
    from clinfer.plugins.plans import looked

    if source.files is None:
        return None
    asked = looked(entry).record
    if asked is not None and look is not None:
        own = {**dict(asked.fields), **device_fields(device)}
        if look(KeyRecord(tuple(own.items()))) is not None:
            return None
    return load_draft(entry.section("plan"), entry.section("weights"), source.files.content)
