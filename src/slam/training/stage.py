"""`slam train`: check, then run the loop as child processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from slam.config import Profile
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.files import locked
from slam.launch import accelerate_launch
from slam.training import checkpoint
from slam.training.journal import read_journal
from slam.training.plan import check_unchanged, make_plan


def train_stage(profile: Profile, latents: Path, out: Path, restart: bool = False) -> dict:
    """Train to `train.steps`, going on from the newest checkpoint in `out`.

    A run of another configuration in `out` is refused, or with `restart` moved to `OUT.previous`.
    """
    plan = make_plan(profile, latents)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / "lock", f"`slam train` is running on {out}"):
        try:
            check_unchanged(out, plan)
        except SlamError as error:
            if not restart:
                raise
            print(f"{error}\nStarting afresh.")
            _set_aside(out)
        if not any(out.glob("checkpoints/step-*")):  # nothing to go on from: no step of this plan has been trained
            (out / "journal.jsonl").unlink(missing_ok=True)
        plan.write(out)
        Latents(latents, "train")  # so that their sha256 are verified once, and not by each process
        code = accelerate_launch("slam.training.loop", [str(out)], plan.train.processes, plan.train.precision)
    if code:
        raise SlamError(
            f"training ended with exit code {code}, as told above; the same command goes on from the newest checkpoint",
            code,
        )
    last = read_journal(out / "journal.jsonl")[-1:]  # nothing, where all was trained before and the journal removed
    kept = checkpoint.checkpoints(out / "checkpoints")
    return {"steps": plan.train.steps, "loss": last[0]["loss"] if last else None, "checkpoints": len(kept)}


def _set_aside(out: Path) -> None:
    """Move the run in `out` to `OUT.previous`, in place of what was there."""
    previous = out.with_name(out.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    for item in out.iterdir():
        if item.name != "lock":
            item.rename(previous / item.name)
