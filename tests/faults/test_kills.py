"""kill -9 or SIGTERM at any moment: the same command again ends as if nothing had happened, bit for bit."""

import os
import random
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from slam.training.journal import Tail
from tests.faults import runs
from tests.faults.summary import Tally

KILLS = int(os.environ.get("SLAM_KILLS", "20"))


def disturbed(begun: Path, expected: runs.Result, place: Path, number: int, times: int, tally: Tally) -> None:
    """Ends runs by signal `number` at `times` random moments in all, and goes on with each to its end."""
    draw = random.Random(number)
    folder, left = None, times
    while left or folder:
        folder = folder or runs.copy(begun, place / f"{number}-{left}")
        child = runs.begin(folder)
        if left:
            wait_for_a_moment(folder, child, draw)
        if left and child.is_alive():
            os.kill(child.pid, number)
            end = runs.end(folder, child)
            assert end.code in (-number, 128 + number, 0), end  # SIGTERM may come when all is done
            if number == signal.SIGKILL:
                tally.tried(f"kill -9 {where(folder)}")
            else:
                tally.tried("SIGTERM")
            left -= 1
            continue
        end = runs.end(folder, child)
        assert end.code == 0, end.said
        assert runs.result(folder) == expected
        assert not list((folder / "checkpoints").glob(".*")), "what a killed run left stays for ever"
        folder = None


def wait_for_a_moment(folder: Path, child: BaseProcess, draw: random.Random) -> None:
    """In one of five cases that is while it starts; else some steps later. By the clock alone, a slow machine would
    never come to its first checkpoint."""
    tail = Tail(folder / "journal.jsonl")
    tail.read()
    steps, new = draw.choice([None, 0, 1, 2, 3]), 0
    while steps is not None and child.is_alive() and new <= steps:  # a run that goes on first writes what it keeps
        child.join(0.002)
        new += bool(tail.read())
    child.join(draw.uniform(0, 0.1))


def where(folder: Path) -> str:
    root = folder / "checkpoints"
    if any(root.glob(".*.partial")):
        return "while a checkpoint was written"
    return "between checkpoints" if any(root.glob("step-*")) else "before the first checkpoint"


def test_kills_at_random_moments_change_no_bit(begun, expected, tmp_path, tally):
    disturbed(begun, expected, tmp_path, signal.SIGKILL, KILLS, tally)


def test_sigterm_at_random_moments_changes_no_bit(begun, expected, tmp_path, tally):
    disturbed(begun, expected, tmp_path, signal.SIGTERM, KILLS // 4, tally)


@pytest.mark.nightly
def test_hundreds_of_kills_change_no_bit(begun, expected, tmp_path, tally):
    disturbed(begun, expected, tmp_path, signal.SIGKILL, 10 * KILLS, tally)
    disturbed(begun, expected, tmp_path, signal.SIGTERM, 5 * KILLS, tally)
