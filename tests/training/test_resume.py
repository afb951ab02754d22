"""Where a run goes on, when what lies in its folder is not what it left."""

import shutil

import pytest
import torch

from slam.errors import SlamError
from slam.training import checkpoint, resume
from slam.training.loop import train
from slam.training.plan import make_plan
from slam.training.scaler import FLOOR
from slam.training.skips import Skips


@pytest.fixture
def run(profile, latents, tmp_path):
    """run(steps): the folder, trained so far with a checkpoint at each step."""

    def trained(steps):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        make_plan(profile(**{"train.steps": steps, "train.checkpoint_every": 1, "train.keep": 3}), latents).write(
            folder
        )
        assert train(folder) == 0
        return folder

    return trained


def test_what_is_written_after_a_damaged_newer_checkpoint_stays(run, capsys):
    """The damaged ones have the higher numbers, and are not the newest of the run that goes on below them."""
    root = run(3) / "checkpoints"
    for number in (7, 8, 9):
        shutil.copytree(root / "step-000003", root / f"step-{number:06}")  # its manifest is of another step
    run(5)
    assert [path.name for path in checkpoint.checkpoints(root)] == ["step-000003", "step-000004", "step-000005"]
    assert sorted(path.name for path in (root / "damaged").iterdir()) == ["step-000007", "step-000008", "step-000009"]
    told = capsys.readouterr().out
    assert told.count("Passing over") == 3
    assert f"{root}/step-000009 is now {root}/damaged/step-000009" in told


def test_where_no_checkpoint_is_whole_training_does_not_start_over_unasked(run):
    folder = run(2)
    for path in checkpoint.checkpoints(folder / "checkpoints"):
        (path / "student.safetensors").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SlamError, match=r"none of the 2 checkpoints in .* can be gone on from.*step 0, move .* away"):
        run(4)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    del before[folder / "plan.json"], after[folder / "plan.json"]
    assert after == before


def test_processes_that_read_different_checkpoints_stop(run, monkeypatch):
    folder = run(1)
    monkeypatch.setattr(resume, "gather_object", lambda own: [*own, "none"])
    with pytest.raises(SlamError, match=r"do not read the same newest checkpoint .*rank 0 [0-9a-f]{12}, rank 1 none"):
        run(2)
    assert [path.name for path in checkpoint.checkpoints(folder / "checkpoints")] == ["step-000001"]


def test_a_checkpoint_has_a_name_of_its_own_and_others_are_left_alone(tmp_path):
    (tmp_path / "step-000001.bak").mkdir()
    (tmp_path / "step-000001.tar").write_text("mine")
    files = {name: {"x": torch.ones(1)} for name in (checkpoint.EMA, checkpoint.STUDENT, checkpoint.OPTIMIZER)}
    for step in (999_998, 999_999, 1_000_000, 1_000_001):  # also where the number gets another digit
        checkpoint.write(tmp_path, step, "", 1, files)
        checkpoint.thin(tmp_path, 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000001.bak", "step-000001.tar", "step-1000000", "step-1000001"]
    assert checkpoint.newest_whole(tmp_path).name == "step-1000001"


@pytest.mark.parametrize(("steps", "stopped"), [([1, 1, 0], True), ([1, 0, 1], False), ([0, 1, 1], True)])
def test_too_many_skipped_in_a_row_are_too_many_wherever_they_lie_between_two_looks(steps, stopped):
    skips = Skips(2, [{"skipped": 1}] * 5)  # what happened before is told, and stops nobody
    skips.count([(0, FLOOR)])
    skips.count((skipped, FLOOR) for skipped in steps)
    assert (skips.too_many, skips.told["skipped"]) == (stopped, 7)
