"""NaN once and for good, and a clock that goes backwards."""

import math
from typing import NamedTuple

import pytest

from slam.training import checkpoint
from slam.training.journal import read_journal
from slam.training.plan import make_plan
from tests.faults import runs
from tests.faults.conftest import STEPS


class NotANumber(NamedTuple):
    """The latents of these steps are NaN, in the child that installs it."""

    steps: range

    def __call__(self) -> None:
        from slam.training import batches

        true = batches.local_batches

        def local_batches(plan, data, draw, step, rank, ranks):
            made = true(plan, data, draw, step, rank, ranks)
            return [one._replace(latents=one.latents * math.nan) for one in made] if step + 1 in self.steps else made

        batches.local_batches = local_batches


class ClockBackwards(NamedTuple):
    """Each look at a clock finds it `seconds` earlier."""

    seconds: float

    def __call__(self) -> None:
        import time

        now = {"time": time.time(), "perf_counter": time.perf_counter()}

        def earlier(clock: str):
            def look() -> float:
                now[clock] -= self.seconds
                return now[clock]

            return look

        for clock in now:
            setattr(time, clock, earlier(clock))


def test_a_step_that_is_not_a_number_is_skipped_whether_or_not_the_run_is_cut_behind_it(begun, tmp_path, tally):
    once = NotANumber(range(7, 8))
    whole, cut = (runs.copy(begun, tmp_path / name) for name in ("whole", "cut"))
    tally.tried("NaN once")
    assert runs.run(whole, once).code == 0
    lines = read_journal(whole / "journal.jsonl")
    assert [line["step"] for line in lines if line["skipped"]] == [7]
    child = runs.begin(cut, once)
    while not checkpoint.checkpoints(cut / "checkpoints"):
        child.join(0.01)
    child.kill()
    runs.end(cut, child)
    assert runs.run(cut, once).code == 0
    assert runs.result(cut) == runs.result(whole)


def test_numbers_that_stay_nan_stop_the_run_at_a_good_checkpoint_and_it_goes_on_when_they_are_mended(
    begun, expected, tmp_path, profile, latents, tally
):
    folder = runs.copy(begun, tmp_path / "run")
    make_plan(profile(**STEPS, **{"train.skips": 2}), latents).write(folder)
    tally.tried("NaN for good")
    end = runs.run(folder, NotANumber(range(9, 99)))
    assert (end.code, "Traceback" in end.said) == (1, False), end.said
    assert "train.skips = 2" in end.said
    assert checkpoint.newest_whole(folder / "checkpoints", print).name == "step-000008"
    assert runs.run(folder).code == 0
    assert runs.result(folder) == expected


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_clock_that_stands_still_or_goes_backwards_decides_nothing(seconds, fresh, expected, tally):
    tally.tried("clock going backwards" if seconds else "clock standing still")
    end = runs.run(fresh, ClockBackwards(seconds))
    assert end.code == 0, end.said
    assert runs.result(fresh) == expected
    assert {line["samples_per_second"] for line in read_journal(fresh / "journal.jsonl")} == {0.0}
