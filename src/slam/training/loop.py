"""The loop around the training step, in each process of `accelerate launch`: `python -m slam.training.loop DIR`.

All state is the step and `State`: randomness and data order are functions of (seed, step). To go on after a kill, run
the same command again.
"""

from __future__ import annotations

import copy
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from slam.config import Train
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.files import sweep
from slam.models.diffusion import load
from slam.progress import progress
from slam.training import checkpoint
from slam.training.alone import alone, first_process
from slam.training.batches import prepared
from slam.training.contexts import encoded
from slam.training.journal import Journal, read_journal
from slam.training.meter import Meter, lines, lr_at
from slam.training.objective import make_objective
from slam.training.plan import read_plan
from slam.training.quick import quick_step
from slam.training.resume import resume
from slam.training.skips import Skips, given_up
from slam.training.state import ema_gap, first_state
from slam.training.step import train_step
from slam.training.stop import SILENCE, Stop
from slam.training.watch import Watch
from slam.training.writer import Writer

STOPPED = 143  # exit code after SIGTERM, as shells count
PARTS = ("text_encoder", "tokenizer", "unet", "scheduler")


def train(folder: Path) -> int:
    """Train the plan in `folder` from its newest whole checkpoint to its last step; returns the exit code.

    Raises `SlamError` when too many steps in a row were not finite, a checkpoint cannot be written, or another process
    trains in `folder`.
    """
    with Stop() as stop, alone(folder):
        return _train(folder, stop)


def _train(folder: Path, stop: Stop) -> int:
    plan = read_plan(folder)
    config = plan.train
    accelerator = Accelerator(
        mixed_precision="no",  # `objective` has the precision
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=SILENCE)],
    )
    main, rank, ranks = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    parts = (*PARTS, "vae") if main and config.pictures_every else PARTS
    model = load(plan.teacher, parts, device=str(accelerator.device))
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False).eval()
    state = first_state(config, network.unet, target.unet)
    if config.checkpointing:
        network.unet.enable_gradient_checkpointing()

    root = folder / "checkpoints"
    start = resume(root, plan.fingerprint, state, accelerator)
    for place in (folder, root) if main else ():
        sweep(place)
    student = accelerator.prepare(network)
    take = quick_step(train_step, config, objective, accelerator, student, target, state)
    skips = Skips(config.skips, [line for line in read_journal(folder / "journal.jsonl") if line["step"] <= start])
    journal = Journal(folder / "journal.jsonl", start) if main else None
    watch = Watch(plan, objective, model, target, folder / "pictures") if main else None
    data = encoded(Latents(Path(plan.latents), "train"), objective.embed, objective.null, config.speed.text_cache)
    steps, stopping = range(start, config.steps), False
    meter = Meter(config.batch)
    with (
        Writer() as writer,
        closing(prepared(plan, data, model.latent_shape, objective.schedule.T, steps, rank, ranks)) as batches,
        progress(steps, "train", disable=not main, initial=start, total=config.steps) as bar,
    ):
        for step, micro_batches in zip(bar, batches, strict=True):
            micro_batches = [batch.to(accelerator.device) for batch in micro_batches]
            for group in state.optimizer.param_groups:
                group["lr"] = lr_at(config, step)
            meter.add(take(micro_batches))
            done, stopping = step + 1, stop.agreed(ranks)
            saving = stopping or done == config.steps or done % config.checkpoint_every == 0
            if saving or done % config.log_every == 0:
                reading = meter.read(accelerator, done)
                skips.count((skipped, scale) for _, _, skipped, scale in reading.steps)
                facts = {"ema_gap": ema_gap(state).item()}
                if main and saving:
                    with meter.paused():
                        facts |= watch.judge()
                if main:
                    journal.write(lines(reading, facts, config))
                bar.set_postfix({**reading.told, "gap": f"{facts['ema_gap']:.2%}", **skips.told}, refresh=False)
                if skips.too_many:
                    break
            if main and saving:
                writer.wait()  # so that no more than one copy of the state is held
                judged = facts.get("held_out_loss")
                writer.start(keep, root, config, done, plan.fingerprint, ranks, checkpoint.snapshot(state), judged)
            if main:
                with meter.paused():
                    watch.draw(done)
            writer.check()
            if stopping:
                break
    stop.settle()
    error = given_up(skips, config, root, done) if main and skips.too_many else None
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if skips.too_many:
        raise error or SlamError("stopped by the first process")
    if stopping:
        accelerator.print(f"stopped by SIGTERM after step {done}; the same command again goes on from there")
    return STOPPED if stopping else 0


def keep(root: Path, config: Train, done: int, *what: Any) -> None:
    """Writes the checkpoint of step `done`, `what` being the rest of it, then takes away what is old."""
    try:
        checkpoint.write(root, done, *what)
        checkpoint.thin(root, config.keep, config.keep_best)
    except OSError as error:
        raise SlamError(
            f"the checkpoint of step {done} cannot be written: {error}. Those before it in {root} are whole: once this "
            "is mended, the same command goes on from the newest"
        ) from error


if __name__ == "__main__":
    try:
        sys.exit(train(Path(sys.argv[1])))
    except SlamError as error:
        if first_process():
            print(f"slam train: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a disk that fails or is full, wherever it says so
        print(f"slam train: {error}", file=sys.stderr)
        sys.exit(1)
