"""A model over a Dask dataframe."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

from clinfer.batch.predictor import Predictor

if TYPE_CHECKING:
    from clinfer.models import ModelLike

_MOST = 4
_kept: OrderedDict[str, Predictor] = OrderedDict()
_keeping = Lock()


def map_partitions(frame: Any, model: ModelLike, **options: Any) -> Any:
    """A Dask dataframe with a model's outputs as columns, and `clinfer_error`.

    `options` are those of `Predictor`. Each worker process loads the model once, with the first of
    its partitions; its threads share it. An output with one number a row is a column of that type,
    others are lists. Raises `InputError` and `ModelError` as `Predictor`, now.
    """
    predictor = Predictor(model, **options)
    meta = predictor.empty(frame._meta)
    token = uuid.uuid4().hex
    return frame.map_partitions(apply, predictor, token, meta=meta, enforce_metadata=False)


def apply(partition: Any, predictor: Predictor, token: str) -> Any:
    """One partition, in a worker."""
    return kept(token, predictor)(partition)


def kept(token: str, predictor: Predictor) -> Predictor:
    """The process's own of all the copies that arrive with tasks: the one that came first."""
    with _keeping:
        found = _kept.setdefault(token, predictor)
        _kept.move_to_end(token)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return found
