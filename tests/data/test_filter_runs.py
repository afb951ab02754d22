"""How the filter is run: killed and run again, on a disk that is full, in several processes, on a cluster."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from slam.data.filter import stage
from slam.data.filter.stage import filter_stage
from slam.errors import SlamError
from tests.data.conftest import FILTER

SAME = ("manifest.parquet", "rejected.parquet", "counts.json", "histograms.png")
KILLED = """
import os, signal, sys
from pathlib import Path
from slam.data.filter import stage
from tests.data.conftest import FILTER

def fatal(function, when):
    def run(*given):
        if when(*given):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given)
    return run

name = sys.argv[1]
stage.sift = fatal(stage.sift, lambda task: name == "shard" and task.number == 2)
stage.write_lists = fatal(stage.write_lists, lambda *given: name == "lists")
stage.drawn = fatal(stage.drawn, lambda *given: name == "picture")
stage.filter_stage(FILTER, Path(sys.argv[2]), Path(sys.argv[3]))
"""


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in SAME]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "left"), [("shard", [2]), ("lists", []), ("picture", [])])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(point, left, drawn, filtered, tmp_path, monkeypatch):
    command = [sys.executable, "-c", KILLED, point, str(drawn / "raw"), str(tmp_path / "out")]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    sifted = []
    monkeypatch.setattr(stage, "sift", lambda task, run=stage.sift: sifted.append(task.number) or run(task))
    filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    assert sifted == left
    assert contents(tmp_path / "out") == contents(filtered)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.slow
def test_what_another_configuration_left_is_not_taken_up(drawn, tmp_path, monkeypatch):
    def stop(task, run=stage.sift):
        if task.number == 2:
            raise KeyboardInterrupt
        return run(task)

    sift = stage.sift
    monkeypatch.setattr(stage, "sift", stop)
    with pytest.raises(KeyboardInterrupt):
        filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    again = []
    monkeypatch.setattr(stage, "sift", lambda task: again.append(task.number) or sift(task))
    filter_stage(FILTER.model_copy(update={"validation": 21}), drawn / "raw", tmp_path / "out")
    assert again == [0, 1, 2]


@pytest.mark.parametrize(
    "most", [20_000, pytest.param(40_000, marks=pytest.mark.slow)]
)  # bytes of a file: too few for the first page, for the picture, which comes last
def test_a_full_disk_is_told_and_what_was_there_stays_and_the_next_run_goes_on(drawn, filtered, tmp_path, most):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.parquet").write_text("of an earlier run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(SlamError, match=r"no room left for .*out: .*what was there before is as it was; make room"):
            filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.parquet"]
    assert (tmp_path / "out/manifest.parquet").read_text() == "of an earlier run"
    filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(filtered)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "dask"])
def test_two_workers_make_the_same_bytes_as_one(engine, drawn, filtered, tmp_path):
    before = dict(os.environ)
    filter_stage(FILTER, drawn / "raw", tmp_path / "out", engine=engine, processes=2)
    assert contents(tmp_path / "out") == contents(filtered)
    assert dict(os.environ) == before


@pytest.mark.slow
def test_no_process_outlives_a_stage_that_was_killed(drawn, tmp_path):
    code = "from slam.data.filter.stage import *; from tests.data.conftest import FILTER; import sys; "
    code += "filter_stage(FILTER, Path(sys.argv[1]), Path(sys.argv[2]), engine='processes', processes=2)"
    main = psutil.Popen([sys.executable, "-c", code, str(drawn / "raw"), str(tmp_path / "out")])
    while not list(tmp_path.rglob("*.passed.parquet")):
        assert main.poll() is None
        time.sleep(0.05)
    tree = main.children(recursive=True)
    assert len(tree) >= 3  # the one that is forked, and its forks
    main.kill()
    main.wait()
    assert psutil.wait_procs(tree, timeout=30)[1] == []


@pytest.mark.slow
def test_a_shard_that_cannot_be_read_costs_the_same_in_other_processes(raw, tmp_path):
    (raw / "00001.parquet").write_bytes(b"")
    config, rows = FILTER.model_copy(update={"survivors": 0.2}), {}
    for engine in ("serial", "processes"):
        rows[engine] = filter_stage(config, raw, tmp_path / engine, engine=engine, processes=2)["rejected"]["broken"]
    assert rows["serial"] == rows["processes"] > 40


@pytest.mark.slow
def test_a_mistake_that_stops_the_stage_is_told_by_other_processes(raw, tmp_path):
    rows = pq.read_table(raw / "00001.parquet")
    pq.write_table(rows.drop_columns("caption"), raw / "00001.parquet")
    for engine in ("serial", "processes", "dask"):
        with pytest.raises(SlamError, match="00001.parquet: expected a column caption or text"):
            filter_stage(FILTER, raw, tmp_path / "out", engine=engine, processes=2)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told(drawn, tmp_path):
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(
            SlamError,
            match=r"--scheduler tcp://127.0.0.1:1: expected a Dask scheduler, tcp://HOST:8786, found Timed out",
        ),
    ):
        filter_stage(FILTER, drawn / "raw", tmp_path / "out", engine="dask", scheduler="tcp://127.0.0.1:1")
