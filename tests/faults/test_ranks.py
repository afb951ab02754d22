"""A rank, or the launcher, that dies in a run of two processes: all end soon, nothing is left, the same bits later."""

import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from slam import launch
from slam.launch import accelerate_launch
from slam.training.journal import read_journal
from slam.training.plan import make_plan
from tests.faults import runs
from tests.faults.conftest import STEPS

pytestmark = pytest.mark.slow
STEPS_OF_TWO = {**STEPS, "train.steps": 40, "train.checkpoint_every": 10, "train.processes": 2}


@pytest.fixture(scope="module")
def begun_by_two(profile, latents, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make_plan(profile(**STEPS_OF_TWO), latents).write(folder)
    return folder


@pytest.fixture(scope="module")
def expected_of_two(begun_by_two, tmp_path_factory) -> runs.Result:
    folder = runs.copy(begun_by_two, tmp_path_factory.mktemp("undisturbed-two") / "run")
    assert train(folder) == 0
    return runs.result(folder)


def train(folder: Path, module: str = "slam.training.loop") -> int:
    return accelerate_launch(module, [str(folder)], 2)


class Training(threading.Thread):
    """`train` in a thread, and the processes below it."""

    def __init__(self, folder: Path, module: str = "slam.training.loop") -> None:
        super().__init__(daemon=True)
        self.folder, self.module, self.code = folder, module, None
        self.before = set(psutil.Process().children(recursive=True))

    def run(self) -> None:
        self.code = train(self.folder, self.module)

    def processes(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive=True) if child not in self.before]

    def rank(self, number: int) -> psutil.Process:
        return next(process for process in self.processes() if process.environ().get("RANK") == str(number))

    def wait_for_step(self, step: int) -> None:
        while self.is_alive() and len(read_journal(self.folder / "journal.jsonl")) < step:
            time.sleep(0.02)
        assert self.is_alive()


@pytest.mark.parametrize(
    "victims",
    [("rank 1", "the launcher"), pytest.param(("rank 0", "the launcher", "rank 0"), marks=pytest.mark.nightly)],
)
def test_when_one_process_is_killed_all_end_within_a_minute_and_the_run_goes_on_bit_for_bit(
    victims, begun_by_two, expected_of_two, tmp_path, tally
):
    folder = runs.copy(begun_by_two, tmp_path / "run")
    for step, victim in zip((8, 18, 28), victims, strict=False):
        training = Training(folder)
        training.start()
        training.wait_for_step(step)
        every = training.processes()
        tally.tried(f"death of {victim}, of two ranks")
        if victim == "the launcher":
            next(process for process in every if "slam.launch" in process.cmdline()).kill()
        else:
            training.rank(int(victim[-1])).kill()
        training.join(60)
        assert not training.is_alive()
        assert training.code not in (0, None)
        assert not [process for process in every if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert train(folder) == 0
    assert runs.result(folder) == expected_of_two


@pytest.mark.nightly
def test_a_rank_that_hangs_ends_the_run(begun_by_two, expected_of_two, tmp_path, tally, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 5.0)
    training = Training(runs.copy(begun_by_two, tmp_path / "run"), "tests.faults.impatient")
    training.start()
    training.wait_for_step(15)
    tally.tried("a rank that hangs")
    training.rank(1).send_signal(signal.SIGSTOP)
    training.join(120)
    assert training.code not in (0, None)
    assert not training.processes()
    assert train(training.folder) == 0
    assert runs.result(training.folder) == expected_of_two
