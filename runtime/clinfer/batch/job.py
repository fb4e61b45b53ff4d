"""Files in, Parquet out: pieces of work that any worker can do, again if need be.

A piece's results become one file, written beside its place and renamed: it is there whole or not
at all. So a piece may be done twice, by a second worker or after a stop, and nothing is lost or
there twice.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clinfer.batch.frames import kept
from clinfer.batch.predictor import ERROR, Predictor, require_count
from clinfer.batch.sources import Piece, pieces
from clinfer.errors import ClinferError, InputError

if TYPE_CHECKING:
    from clinfer.models import ModelLike

_RECORD = "_clinfer_job.json"
_FORMAT = 1
_PIECE_ROWS = 4096
_TABLE_ROWS = 512
_RETRIES = 5
_SWEEP_SECONDS = 3600.0


class Report(NamedTuple):
    """Rows with results, and rows set aside, in all files of the target; pieces done now, and
    pieces that an earlier run had done.
    """

    rows: int
    rejected: int
    pieces: int
    resumed: int


class Done(NamedTuple):
    """A piece's rows with results, and without."""

    rows: int
    rejected: int


Progress = Callable[[int, int], None]
"""Told of rows that are done, and of all rows, after each piece."""


class _Task(NamedTuple):
    predictor: Predictor
    token: str
    target: str
    number: int
    piece: Piece


def run(
    source: str | os.PathLike[str],
    model: ModelLike,
    target: str | os.PathLike[str],
    *,
    workers: Any = None,
    piece_rows: int = _PIECE_ROWS,
    resources: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Runs a model over every row of `source` and writes `part-NNNNNN.parquet` files to `target`.

    `source` is a Parquet or Arrow file, a folder of such, or of pictures (columns `path` and
    `image`, uint8 of height, width and RGB). `target` is a folder that all workers reach. Rows that
    are no input of the model are in `rejected-NNNNNN.parquet`, each with its reason in
    `clinfer_error`. A run that was stopped goes on where it was: what is there whole stays.

    `workers`: None for this process, "ray" for the Ray cluster in use (`resources` are options of
    its tasks, such as `num_gpus`), or a client of `dask.distributed`. A piece whose worker dies is
    done by another. `piece_rows` is about how many rows a piece has. `options` are those of
    `Predictor`.

    Raises `InputError` for a source that cannot be read, a target that cannot be written to or has
    results of another job; what a worker raises (`DeviceError`, `ModelError`).
    """
    predictor = Predictor(model, **options)
    require_count("piece_rows", piece_rows)
    folder = Path(target)
    found = pieces(source, piece_rows)
    _require_apart(Path(source), folder)
    _begin(folder, predictor.described(), found)
    token = uuid.uuid4().hex
    tasks = [
        _Task(predictor, token, str(folder), number, piece)
        for number, piece in enumerate(found)
        if not _part(folder, number).exists()
    ]
    earlier = [
        _counted(folder, number) for number in range(len(found)) if _part(folder, number).exists()
    ]
    total = sum(piece.rows for piece in found)
    rows, rejected = sum(d.rows for d in earlier), sum(d.rejected for d in earlier)
    if progress is not None:
        progress(rows + rejected, total)
    for done in _runner(workers, resources or {})(tasks):
        rows, rejected = rows + done.rows, rejected + done.rejected
        if progress is not None:
            progress(rows + rejected, total)
    return Report(rows, rejected, len(tasks), len(earlier))


def perform(task: _Task) -> Done:
    """Does one piece, in whichever process. Raises what is not the fault of a row."""
    import pyarrow.compute

    predictor, folder = kept(task.token, task.predictor), Path(task.target)
    parts = {
        place: _Part(place)
        for place in (_part(folder, task.number), _rejected(folder, task.number))
    }
    good, bad = parts.values()
    try:
        for table in task.piece.tables(_TABLE_ROWS):
            found = predictor.of(table)
            reasons = found[ERROR]
            is_good = pyarrow.compute.equal(reasons, "")
            good.write(found.filter(is_good).drop_columns([ERROR]))
            is_bad = pyarrow.compute.invert(is_good)
            if pyarrow.compute.any(is_bad).as_py():
                own = table.with_columns({}, {}, {ERROR: reasons.to_pylist()}, True)
                bad.write(own.filter(is_bad))
        bad.finish()
        good.finish()  # last: where it is, the piece is done
    except OSError as error:  # files that are read have errors of their own
        raise InputError(f"'{folder}' cannot be written to: {error}") from error
    finally:
        good.give_up()
        bad.give_up()
    return Done(good.rows, bad.rows)


class _Part:
    """A Parquet file that appears whole."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._beside = place.with_name(f".{place.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._writer: Any = None
        self._empty: Any = None
        self.rows = 0

    def write(self, table: Any) -> None:
        """Adds rows. What types columns have, tables with rows tell better than those without."""
        if not table.num_rows:
            self._empty = table
            return
        self._open(table.schema).write_table(table.cast(self._writer.schema))
        self.rows += table.num_rows

    def _open(self, schema: Any) -> Any:
        import pyarrow.parquet

        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._beside, schema)
        return self._writer

    def finish(self) -> None:
        """Puts the file in its place; there is none, nor one of before, where nothing came."""
        if self._writer is None and self._empty is not None:
            self._open(self._empty.schema)
        if self._writer is not None:
            self._writer.close()
            self._beside.replace(self._place)
        else:
            self._place.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Removes what is not finished."""
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()
        with suppress(OSError):
            self._beside.unlink()


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.parquet"


def _rejected(folder: Path, number: int) -> Path:
    return folder / f"rejected-{number:06}.parquet"


def _counted(folder: Path, number: int) -> Done:
    """What an earlier run has left of a piece."""
    import pyarrow.parquet

    def rows(place: Path) -> int:
        try:
            return int(pyarrow.parquet.read_metadata(place).num_rows) if place.exists() else 0
        except (OSError, ValueError) as error:
            raise InputError(f"'{place}' is damaged: remove it, and run again ({error})") from error

    return Done(rows(_part(folder, number)), rows(_rejected(folder, number)))


def _begin(folder: Path, described: Mapping[str, Any], found: Sequence[Piece]) -> None:
    """Notes what the results are of. Raises `InputError` where the folder has those of others."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        record = folder / _RECORD
        states = [piece.state for piece in found]
        job = {"format": _FORMAT, **described, "pieces": states}
        if record.exists():
            before = _read(record)
            changed = [key for key in {**job, **before} if before.get(key) != job.get(key)]
            if changed:
                raise InputError(
                    f"'{folder}' has results of another job: {', '.join(sorted(changed))} changed "
                    "since; give another folder, or remove it"
                )
            return
        if any(folder.glob("part-*.parquet")):
            raise InputError(f"'{folder}' has results of something else: give another folder")
        beside = record.with_name(f".{_RECORD}.{os.getpid()}")
        beside.write_text(json.dumps(job))
        beside.replace(record)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be written to: {error}") from error


def _require_apart(source: Path, folder: Path) -> None:
    """Raises `InputError` where results would be among what is read the next time."""
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"target: expected a folder outside of the source '{source}'; found '{folder}'"
        )


def _sweep(folder: Path) -> None:
    """Removes what processes were writing when they were killed, when nobody can be at it."""
    for pattern in (".part-*", ".rejected-*"):
        for path in folder.glob(pattern):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _SWEEP_SECONDS:
                    path.unlink()


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"'{record}' is damaged: remove the folder, and run again")
    return found


_Run = Callable[[Sequence[_Task]], Iterator[Done]]


def _runner(workers: Any, resources: Mapping[str, Any]) -> _Run:
    if workers is None:
        return lambda tasks: map(perform, tasks)
    if workers == "ray":
        return lambda tasks: _on_ray(tasks, resources)
    if hasattr(workers, "submit") and hasattr(workers, "scheduler_info"):
        return lambda tasks: _on_dask(tasks, workers)
    raise InputError(
        f'workers: expected None, "ray" or a dask.distributed.Client; found {workers!r}'
    )


def _on_ray(tasks: Sequence[_Task], resources: Mapping[str, Any]) -> Iterator[Done]:
    import ray

    options = {"num_cpus": 1, "max_retries": _RETRIES, **resources}
    remote = ray.remote(perform).options(**options)
    waiting = [remote.remote(task) for task in tasks]
    try:
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClinferError):
            raise error.cause from None
        raise
    finally:
        for reference in waiting:
            ray.cancel(reference)


def _on_dask(tasks: Sequence[_Task], client: Any) -> Iterator[Done]:
    import distributed

    as_completed: Any = distributed.as_completed
    futures = [client.submit(perform, task, retries=_RETRIES, pure=False) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        client.cancel(futures)
