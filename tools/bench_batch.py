"""What many rows cost by `clinfer.batch`, on one process and on workers of Ray.

    python tools/bench_batch.py [MODEL.onnx] [--rows 10000] [--workers 2] [--kill]

Rows are random inputs of the model (the example of digits), in Parquet files of 1,000. Figures:
rows per second of a loop over the compiled model itself, of `run` in this process, of `run` on Ray
with one worker, two, ... so many, each of a core, and of `Dataset.map_batches`. With --kill one
worker is killed on the way. Rows and values are compared with those of one process, every time.

Beyond this machine: seconds = start + rows / (rate x workers), where the start is what the first
piece takes and the rate is that of one worker afterwards; the store that all read and write is not
in it.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

import clinfer
from clinfer.batch import ERROR, Predictor, run

_FILE_ROWS = 1000
_SOURCE = ("input", "id")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=Path("examples/digits.onnx"))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    model = options.model.absolute()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["CLINFER_CACHE_DIR"] = str(place / "cache")
        port, rows = _written(model, place / "in", options.rows)
        clinfer.Core().compile_model(model, "CPU")
        base = _report("a loop over the model", options.rows, lambda: _loop(model, port, rows))
        job, columns = (place / "in", model, place / "one"), {port: _SOURCE[0]}
        _report(
            "run(), this process",
            options.rows,
            lambda: run(*job, piece_rows=500, columns=columns),
            base,
        )
        one = _results(place / "one")
        _on_ray(options, model, place, one, base, columns)


def _on_ray(
    options: Any,
    model: Path,
    place: Path,
    one: dict[int, Any],
    base: float,
    columns: dict[str, str],
) -> None:
    import ray

    # Else whatever runs beside its workers goes first.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    # A core more than workers: actors keep theirs, and what reads and splits needs one.
    cores = options.workers + 1
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    for workers in range(1, options.workers + 1):
        _files(options, model, place, base, one, columns, workers, cores / workers)
    if options.kill:
        pids = set(ray.get([ray.remote(_process).remote() for _ in range(options.workers)]))
        share = cores / options.workers
        _files(options, model, place, base, one, columns, options.workers, share, pids)
    data = ray.data.read_parquet(str(place / "in"))

    def mapped() -> list[dict[str, Any]]:
        made = data.map_batches(
            Predictor,
            fn_constructor_args=(str(model),),
            fn_constructor_kwargs={"config": {"INFERENCE_NUM_THREADS": 1}, "columns": columns},
            compute=ray.data.ActorPoolStrategy(size=options.workers),
        )
        return list(made.take_all())

    found: list[list[dict[str, Any]]] = []
    title = f"map_batches, {options.workers} actors"
    _report(title, options.rows, lambda: found.append(mapped()), base)
    errors = {row[ERROR] for row in found[0]} - {""}
    assert not errors, errors
    _compare(one, {row["id"]: row for row in found[0]})


def _files(
    options: Any,
    model: Path,
    place: Path,
    base: float,
    one: dict[int, Any],
    columns: dict[str, str],
    workers: int,
    cores: float,
    kills: set[int] | None = None,
) -> None:
    """`run` on so many workers; one of the processes `kills` is killed after the first piece."""
    target = place / f"ray-{workers}{'-killed' if kills else ''}"
    told: list[tuple[float, int]] = []

    def progress(done: int, _total: int) -> None:
        told.append((time.perf_counter(), done))
        if done and kills:
            os.kill(kills.pop(), signal.SIGKILL)
            kills.clear()
            print("  (killed a worker)")

    def work() -> None:
        job = (place / "in", model, target)
        run(
            *job,
            workers="ray",
            piece_rows=500,
            progress=progress,
            resources={"num_cpus": cores},
            config={"INFERENCE_NUM_THREADS": 1},
            columns=columns,
        )

    _report(f"run(), Ray, {workers} worker{'s' if workers > 1 else ''}", options.rows, work, base)
    _compare(one, _results(target))
    (begin, _), (first, rows), *_, (end, _) = told
    rate = (options.rows - rows) / (end - first)
    print(f"  first piece after {first - begin:.1f} s, then {rate:.0f} rows/s")


def _process() -> int:
    """A worker's number; it takes long enough that the next one is another's."""
    time.sleep(1.0)
    return os.getpid()


def _written(model: Path, folder: Path, count: int) -> tuple[str, np.ndarray[Any, Any]]:
    """The input's name, and the rows that are in the files."""
    port = clinfer.Core().read_model(model).inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in port.shape[1:]]
    rows = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    folder.mkdir()
    for start in range(0, count, _FILE_ROWS):
        part = rows[start : start + _FILE_ROWS]
        ids = np.arange(start, start + len(part))
        table = pyarrow.table({_SOURCE[0]: part.tolist(), _SOURCE[1]: ids})
        pyarrow.parquet.write_table(table, folder / f"{start:08}.parquet", row_group_size=500)
    return port.name, rows


def _loop(model: Path, name: str, rows: np.ndarray[Any, Any]) -> None:
    compiled = clinfer.Core().compile_model(model, "CPU")
    for start in range(0, len(rows), 64):
        compiled({name: rows[start : start + 64]})


def _report(title: str, rows: int, action: Any, base: float = 0.0) -> float:
    start = time.perf_counter()
    action()
    rate = rows / (time.perf_counter() - start)
    print(f"{title:<28}{rate:>12.0f} rows/s" + (f"{rate / base:>8.2f}" if base else ""))
    return rate


def _results(folder: Path) -> dict[int, Any]:
    tables = [pyarrow.parquet.read_table(p) for p in sorted(folder.glob("part-*.parquet"))]
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def _compare(one: dict[int, Any], other: dict[int, Any]) -> None:
    assert one.keys() == other.keys(), "other rows than in one process"
    # Those of the source come in a form of their own.
    outputs = [name for name in next(iter(one.values())) if name not in _SOURCE]
    for number, row in one.items():
        for name in outputs:
            np.testing.assert_allclose(other[number][name], row[name], rtol=1e-5, atol=1e-6)
    print("  same rows and values as one process", flush=True)


if __name__ == "__main__":
    main()
