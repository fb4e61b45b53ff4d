"""Ray and Dask with two workers: the rows and values of one process, also when a worker dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from api.made import dense_answer
from batch.test_job import read, written
from clinfer.batch import ERROR, Predictor, map_partitions, run


class DiesOnce(Predictor):
    """The first process that comes to the third batch is killed."""

    def __call__(self, batch):
        mark = Path(os.environ["CLINFER_TEST_MARK"])
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def worker(seconds: float = 0.5) -> int:
    """The process that does this, for long enough that others get the next."""
    time.sleep(seconds)
    return os.getpid()


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """A cluster of two workers, and a core for the reading."""
    module = pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    # Ray's workers step back for everything else on the machine, which a test need not.
    patch.setenv("RAY_worker_niceness", "0")
    mark = tmp_path_factory.mktemp("ray") / "died"
    cache = tmp_path_factory.mktemp("cache")
    module.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    variables = {"CLINFER_TEST_MARK": str(mark), "CLINFER_CACHE_DIR": str(cache)}
    module.init(
        num_cpus=3,  # one for what reads: actors keep theirs
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    module.mark = mark
    yield module
    module.shutdown()
    patch.undo()


def test_map_batches_of_ray_with_a_worker_that_dies(ray, dense, x):
    data = pytest.importorskip("ray.data")
    rows = data.from_items([{"x": x[i % 100], "id": i} for i in range(400)]).repartition(20)
    found = rows.map_batches(
        DiesOnce, fn_constructor_args=(str(dense),), concurrency=2, batch_size=20
    ).take_all()
    assert ray.mark.exists()
    assert sorted(row["id"] for row in found) == list(range(400))
    for row in found:
        assert row[ERROR] == ""
        np.testing.assert_allclose(row["y"], dense_answer(x[row["id"] % 100]), rtol=1e-5, atol=1e-5)


def test_files_by_ray_with_a_worker_that_is_killed(ray, dense, x, tmp_path):
    workers = set(ray.get([ray.remote(worker).remote() for _ in range(3)]))
    killed = []

    def kill(done: int, _total: int) -> None:
        if done and not killed:
            killed.append(workers.pop())
            os.kill(killed[0], signal.SIGKILL)

    source = written(tmp_path / "in", x)
    report = run(source, dense, tmp_path / "out", workers="ray", piece_rows=10, progress=kill)
    assert killed
    assert (report.rows, report.rejected) == (100, 0)
    found = read(tmp_path / "out")
    y = np.array([found[row] for row in range(100)])
    np.testing.assert_allclose(y, dense_answer(x), rtol=1e-5, atol=1e-5)


@pytest.fixture
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made,
        distributed.Client(made) as found,
    ):
        yield found


def test_partitions_and_files_by_dask(client, dense, x, tmp_path):
    frames = pytest.importorskip("dask.dataframe")
    pandas = pytest.importorskip("pandas")
    # Dask makes text of columns of objects, of lists too, unless it is told not to.
    dask = pytest.importorskip("dask")
    frame = pandas.DataFrame({"x": x.tolist(), "id": range(100)})
    dask.config.set({"dataframe.convert-string": False})
    made = map_partitions(frames.from_pandas(frame, npartitions=5), dense, keep=True)
    found = made.compute()
    np.testing.assert_allclose(np.array(found["y"].tolist()), dense_answer(x), rtol=1e-5, atol=1e-5)
    assert found["id"].tolist() == list(range(100))
    source = written(tmp_path / "in", x)
    report = run(source, dense, tmp_path / "out", workers=client, piece_rows=20)
    assert (report.rows, report.rejected) == (100, 0)
    assert len(read(tmp_path / "out")) == 100
