"""Inference over many rows, files and machines, inside the tools people have for that.

    Predictor        a callable class for Ray Data's `map_batches`: one model per actor
    map_partitions   the same for a Dask dataframe: one model per worker process
    run              files in, Parquet out: resumes after a stop, sets bad rows aside

A model is loaded where it runs, from the cache (a remote store included), on the device that the
scheduler has assigned there. Needs the extra `batch`; Ray and Dask are the user's own.
"""

from __future__ import annotations

from clinfer.batch.frames import map_partitions
from clinfer.batch.job import Progress, Report, run
from clinfer.batch.predictor import ERROR, Predictor

__all__ = ["ERROR", "Predictor", "Progress", "Report", "map_partitions", "run"]
