"""The loop around the training step, in each process of `accelerate launch`: `python -m slam.training.loop DIR`.

All state is the step and `State`: randomness and data order are functions of (seed, step). To go on after a kill, run
the same command again.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from slam.config import Train
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.files import sweep
from slam.models.diffusion import load
from slam.progress import progress
from slam.training import checkpoint
from slam.training.batches import prepared
from slam.training.journal import Journal, read_journal
from slam.training.objective import make_objective
from slam.training.plan import read_plan
from slam.training.quick import quick_step
from slam.training.skips import Skips, given_up
from slam.training.state import ema_gap, first_state
from slam.training.step import train_step
from slam.training.stop import SILENCE, Stop
from slam.training.writer import Writer

STOPPED = 143  # exit code after SIGTERM, as shells count


def train(folder: Path) -> int:
    """Train the plan in `folder` from its newest whole checkpoint to its last step; returns the exit code.

    Raises `SlamError` when too many steps in a row were not finite, or a checkpoint cannot be written.
    """
    with Stop() as stop:
        return _train(folder, stop)


def _train(folder: Path, stop: Stop) -> int:
    plan = read_plan(folder)
    config = plan.train
    accelerator = Accelerator(
        mixed_precision="no",  # `objective` has the precision
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=SILENCE)],
    )
    main, ranks = accelerator.is_main_process, accelerator.num_processes
    model = load(plan.teacher, ("text_encoder", "tokenizer", "unet", "scheduler"), device=str(accelerator.device))
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False).eval()
    state = first_state(config, network.unet, target.unet)
    if config.checkpointing:
        network.unet.enable_gradient_checkpointing()

    root = folder / "checkpoints"
    newest = checkpoint.newest_whole(root, accelerator.print, plan.fingerprint)
    start = checkpoint.restore(newest, state) if newest else 0
    for place in (folder, root) if main else ():
        sweep(place)
    if newest:
        accelerator.print(f"going on from {newest}")
    student = accelerator.prepare(network)
    take = quick_step(train_step, config, objective, accelerator, student, target, state)
    skips = Skips(config.skips, [line for line in read_journal(folder / "journal.jsonl") if line["step"] <= start])
    journal = Journal(folder / "journal.jsonl", start) if main else None
    data = Latents(Path(plan.latents), "train")
    window: list[Tensor] = []  # what `train_step` returned for the steps that the journal does not have yet
    clock = time.perf_counter()
    steps, stopping = range(start, config.steps), False
    place = accelerator.process_index, ranks
    with (
        Writer() as writer,
        closing(prepared(plan, data, model.latent_shape, objective.schedule.T, steps, *place)) as batches,
        progress(steps, "train", disable=not main, initial=start, total=config.steps) as bar,
    ):
        for step, micro_batches in zip(bar, batches, strict=True):
            micro_batches = [batch.to(accelerator.device) for batch in micro_batches]
            for group in state.optimizer.param_groups:
                group["lr"] = lr_at(config, step)
            window.append(take(micro_batches))
            done, stopping = step + 1, stop.agreed(ranks)
            saving = stopping or done == config.steps or done % config.checkpoint_every == 0
            if saving or done % config.log_every == 0:
                values = over_ranks(accelerator, torch.stack(window)).tolist()
                gap = ema_gap(state).item()
                rate = per_second(config.batch * len(window), time.perf_counter() - clock)
                if journal:
                    journal.write(lines(values, done, rate, gap, config))
                skips.count((skipped, scale) for _, _, skipped, scale in values)
                bar.set_postfix(told(values[-1], rate, gap) | skips.told, refresh=False)
                if skips.too_many:
                    break
                window, clock = [], time.perf_counter()
            if main and saving:
                writer.start(keep, root, done, plan.fingerprint, ranks, checkpoint.snapshot(state), config)
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


def keep(root: Path, done: int, fingerprint: str, processes: int, files: checkpoint.Files, config: Train) -> None:
    """Writes a checkpoint, then takes away what is old."""
    try:
        checkpoint.write(root, done, fingerprint, processes, files)
        checkpoint.thin(root, config.keep)
    except OSError as error:
        raise SlamError(
            f"the checkpoint of step {done} cannot be written: {error}. Those before it in {root} are whole: once this "
            "is mended, the same command goes on from the newest"
        ) from error


def lr_at(config: Train, step: int) -> float:
    """The learning rate of step `step`, counted from 0: a rise over `warmup` steps, then constant or a linear fall."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.decay == "linear":
        return config.lr * (config.steps - step) / (config.steps - config.warmup)
    return config.lr


def over_ranks(accelerator: Accelerator, values: Tensor) -> Tensor:
    return accelerator.reduce(values, "mean") if accelerator.num_processes > 1 else values


def per_second(count: int, seconds: float) -> float:
    """0 where the clock stood still or went backwards."""
    return count / seconds if seconds > 0 else 0.0


def lines(values: list[list[float]], done: int, rate: float, gap: float, config: Train) -> list[dict]:
    """The journal's lines for the steps up to number `done`, counted from 1. JSON has no NaN: null stands for it.

    `gap`, of the last of them, is on its line alone.
    """
    common = {"samples_per_second": round(rate, 2), "time": round(time.time(), 3)}
    found = []
    for step, (loss, norm, skipped, scale) in enumerate(values, done - len(values) + 1):
        loss, norm = (value if math.isfinite(value) else None for value in (loss, norm))
        line = {"step": step, "loss": loss, "grad_norm": norm, "skipped": int(skipped), "lr": lr_at(config, step - 1)}
        if config.precision == "fp16":
            line["loss_scale"] = scale
        found.append(line | common)
    found[-1]["ema_gap"] = gap
    return found


def told(values: list[float], rate: float, gap: float) -> dict[str, str]:
    """What the bar shows of the last step."""
    loss, norm, *_ = values
    return {"loss": f"{loss:.4f}", "grad": f"{norm:.3g}", "gap": f"{gap:.2%}", "samples_s": f"{rate:.0f}"}


if __name__ == "__main__":
    try:
        sys.exit(train(Path(sys.argv[1])))
    except SlamError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"slam train: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a disk that fails or is full, wherever it says so
        print(f"slam train: {error}", file=sys.stderr)
        sys.exit(1)
