"""`slam train`: check, then run the loop as child processes.

Where a launcher started this command already, as on two machines that share the folder

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m slam.cli train

or `accelerate launch --num_machines 2 ... -m slam.cli train`, each of those processes is one of the loop's, and
`train.processes` and `train.grace` are not read. The first one checks, and holds the lock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from slam.config import Profile, parse
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.files import locked
from slam.launch import accelerate_launch
from slam.training import checkpoint
from slam.training.alone import alone
from slam.training.journal import read_journal
from slam.training.plan import Plan, check_unchanged, make_plan


def train_stage(profile: Profile, latents: Path, out: Path, restart: bool = False) -> dict:
    """Train to `train.steps`, going on from the newest checkpoint in `out`; returns what the journal says at the end.

    A run of another configuration in `out` is refused, or with `restart` moved to `OUT.previous`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        code = _join(with_processes(profile, world), latents, out, restart)
    else:
        with _begun(profile, latents, out, restart) as plan:
            code = accelerate_launch("slam.training.loop", [str(out)], plan.train.processes, grace=plan.train.grace)
    if code:
        raise SlamError(
            f"training ended with exit code {code}, as told above; the same command goes on from the newest checkpoint",
            code,
        )
    last = read_journal(out / "journal.jsonl")[-1:]  # nothing, where all was trained before and the journal removed
    kept = checkpoint.checkpoints(out / "checkpoints")
    return {"steps": profile.train.steps, "loss": last[0]["loss"] if last else None, "checkpoints": len(kept)}


def with_processes(profile: Profile, processes: int) -> Profile:
    """Raises `SlamError` when the global batch is no multiple of that."""
    values = profile.model_dump()
    return parse({**values, "train": {**values["train"], "processes": processes}}, f"with {processes} processes")


def _join(profile: Profile, latents: Path, out: Path, restart: bool) -> int:
    """One process of those that a launcher started."""
    import torch
    from accelerate import PartialState

    from slam.training.loop import train
    from slam.training.stop import SILENCE

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=SILENCE)
    with _begun(profile, latents, out, restart) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        try:
            return train(out)
        except OSError as error:  # a disk that fails or is full, wherever it says so
            raise SlamError(str(error)) from error


@contextmanager
def _begun(profile: Profile, latents: Path, out: Path, restart: bool) -> Iterator[Plan]:
    """Everything that can be checked is, then `out` holds the plan, and is nobody else's."""
    plan = make_plan(profile, latents)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / "lock", f"`slam train` is running on {out}"):
        with alone(out):
            pass
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
        yield plan


def _set_aside(out: Path) -> None:
    """Move the run in `out` to `OUT.previous`, in place of what was there."""
    previous = out.with_name(out.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    for item in out.iterdir():
        if item.name not in ("lock", "loop.lock"):
            item.rename(previous / item.name)
