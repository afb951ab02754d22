"""kill -9 at any moment: the same command again ends as if nothing had happened, bit for bit."""

import os
import random
import time

import pytest

from tests.faults import runs

KILLS = int(os.environ.get("SLAM_KILLS", "20"))
NIGHTLY = 200


def where(folder) -> str:
    """What a kill met, for the table."""
    root = folder / "checkpoints"
    if any(root.glob(".*.partial")):
        return "while a checkpoint was written"
    return "between checkpoints" if any(root.glob("step-*")) else "before the first checkpoint"


def killed_and_gone_on(begun, expected, tmp_path, kills: int, seed: int, tally) -> None:
    draw = random.Random(seed)
    folder, number, left = None, 0, kills
    took = 3.0  # seconds of a whole run, as far as is known
    while left or folder:
        if folder is None:
            folder, number = runs.copy(begun, tmp_path / str(number)), number + 1
        started = time.monotonic()
        child = runs.begin(folder)
        if left:
            child.join(draw.uniform(0, took))
            if child.is_alive():
                child.kill()
                left -= 1
                child.join()
                tally.tried(f"kill -9 {where(folder)}")
                continue
        end = runs.end(folder, child)
        took = time.monotonic() - started if left == kills else took
        assert end.code == 0, end.said
        assert runs.result(folder) == expected
        assert not list((folder / "checkpoints").glob(".*")), "what a killed run left stays for ever"
        folder = None


def test_kills_at_random_moments_change_no_bit(begun, expected, tmp_path, tally):
    killed_and_gone_on(begun, expected, tmp_path, KILLS, seed=0, tally=tally)


@pytest.mark.nightly
def test_hundreds_of_kills_change_no_bit(begun, expected, tmp_path, tally):
    killed_and_gone_on(begun, expected, tmp_path, NIGHTLY, seed=1, tally=tally)
