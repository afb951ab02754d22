"""The tracking server away in every way: after the replay it has each number of the journal exactly once."""

import os
import shutil
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from slam.files import read_json, write_json
from slam.registry.feed import feeding
from slam.registry.mirror import drain
from slam.registry.track import NAME
from slam.training.journal import Journal, read_journal
from slam.training.plan import make_plan
from tests.faults.children import feed, serve, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture(autouse=True)
def counted(tally) -> None:
    tally.tried("the tracking server, or its feed, away")


@pytest.fixture
def root(tmp_path, empty_database, profile, latents) -> Path:
    """A checkout whose training has a plan and no step yet."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    folder = tmp_path / "runs/train"
    folder.mkdir(parents=True)
    make_plan(profile(**{"train.steps": 60}), latents).write(folder)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(root: Path, port: int):
    child = start(serve, port, root / "mlflow.db")
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except URLError:
            time.sleep(0.1)
    try:
        yield child
    finally:
        child.kill()
        child.join()


@contextmanager
def hanging(port: int):
    """What accepts and never answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        yield


@contextmanager
def fed(root: Path, port: int):
    """A feed beside the block; waits for its end as `slam train` does."""
    child = start(feed, root / "runs/train", root, f"http://127.0.0.1:{port}")
    yield child
    child.terminate()
    child.join(40)
    assert child.exitcode is not None


def train(root: Path, steps: range, seconds: float = 0.02) -> None:
    """Writes the journal as a training would that goes on from the first of `steps`."""
    journal = Journal(root / "runs/train/journal.jsonl", steps[0] - 1)
    for step in steps:
        journal.write([{"step": step, "loss": 1 / step, "skipped": 0, "lr": 1e-4, "time": round(time.time(), 3)}])
        time.sleep(seconds)
    journal.close()


def recorded(root: Path) -> dict[str, list[tuple[int, float]]]:
    """What the one run of the database has, as (step, value), without forgiving doubles."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: sorted((point.step, point.value) for point in points) for key, points in history.items()}


def times(root: Path) -> list[float]:
    return [line["time"] for line in read_journal(root / "runs/train/journal.jsonl")]


def wait_for(root: Path, steps: int) -> None:
    """Until the server has acknowledged that many; the feed's own pace is no matter of these tests."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        notes = [read_json(path, "") for path in (root / ".slam/training").glob("*.json")]
        if any(run["acknowledged"] >= steps for note in notes for run in note["runs"].values()):
            return
        time.sleep(0.1)
    raise AssertionError(f"step {steps} did not arrive in a minute")


def assert_every_number_once(root: Path, steps: int, missing: int = 0) -> None:
    """Of the journal's `steps` lines, all but the last `missing`."""
    lines = read_journal(root / "runs/train/journal.jsonl")
    assert len(lines) == steps
    expected = {
        f"train/{key}": [(line["step"], line[key]) for line in lines[: steps - missing]]
        for key in ("loss", "skipped", "lr")
    }
    assert recorded(root) == expected


def test_a_server_that_is_down_at_the_start(root, port):
    with fed(root, port):
        train(root, range(1, 31))
        with server(root, port):
            train(root, range(31, 61))
            wait_for(root, 60)
    assert_every_number_once(root, 60)


def test_a_server_that_dies_in_the_middle_again_and_again(root, port):
    with fed(root, port):
        for begin in range(1, 61, 20):
            with server(root, port):
                train(root, range(begin, begin + 10))
            train(root, range(begin + 10, begin + 20))
        with server(root, port):
            wait_for(root, 60)
    assert_every_number_once(root, 60)


def test_a_server_that_hangs(root, port):
    with fed(root, port):
        with hanging(port):
            train(root, range(1, 31))
            time.sleep(3)
        with server(root, port):
            wait_for(root, 30)
        with hanging(port):
            train(root, range(31, 61))
            time.sleep(3)
        with server(root, port):
            wait_for(root, 60)
    assert_every_number_once(root, 60)


def test_a_server_that_is_down_at_the_end_gets_the_rest_at_the_registration(root, port, monkeypatch):
    with server(root, port), fed(root, port) as child:
        train(root, range(1, 31))
        wait_for(root, 1)
    assert child.exitcode == 0
    with fed(root, port) as child:
        train(root, range(31, 61))
        os.kill(child.pid, signal.SIGINT)  # as after Ctrl-C: in a hurry
    assert child.exitcode == 1
    assert_every_number_once(root, 60, missing=30)
    with server(root, port):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        assert drain(root / "runs/train", root) == drain(root / "runs/train", root)
    assert_every_number_once(root, 60)


def test_a_feed_that_is_killed_with_its_training_sends_nothing_twice(root, port):
    """The steps behind the last checkpoint are trained again, at another time."""
    with server(root, port):
        for begin in (1, 11, 21):
            with fed(root, port) as child:
                train(root, range(begin, begin + 40))
                child.kill()
        with fed(root, port):
            wait_for(root, 60)
    before = times(root)
    assert_every_number_once(root, 60)
    (note,) = (root / ".slam/training").glob("*.json")
    state = read_json(note, "")
    for run in state["runs"].values():
        run["acknowledged"] = 0  # as if every answer had been lost
    write_json(note, state)
    train(root, range(1, 61), seconds=0)
    assert times(root) != before
    with server(root, port), fed(root, port):
        wait_for(root, 60)
    assert_every_number_once(root, 60)


def test_without_a_server_the_file_in_the_checkout_is_fed_and_no_failure_reaches_the_training(root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with feeding(root / "runs/train", root):
        train(root, range(1, 61), seconds=0.1)
    assert_every_number_once(root, 60)
    (run,) = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.0003"
