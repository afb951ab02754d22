"""The loop around the training step, in each process of `accelerate launch`: `python -m slam.training.loop DIR`.

All state is the step, the student, the target and the optimizer: randomness and data order are functions of
(seed, step). To go on after a kill, run the same command again.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from slam.config import Train
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.models.diffusion import load
from slam.progress import progress
from slam.training import checkpoint
from slam.training.batches import prepared
from slam.training.journal import Journal
from slam.training.objective import make_objective
from slam.training.plan import read_plan
from slam.training.scaler import FLOOR
from slam.training.state import first_state
from slam.training.step import train_step

STOPPED = 143  # exit code after SIGTERM, as shells count


def train(folder: Path) -> int:
    """Train the plan in `folder` from its newest whole checkpoint to its last step; returns the exit code."""
    with Stop() as stop:
        return _train(folder, stop)


def _train(folder: Path, stop: Stop) -> int:
    plan = read_plan(folder)
    config = plan.train
    accelerator = Accelerator(mixed_precision="no")  # the objective's autocast has the precision
    model = load(plan.teacher, ("text_encoder", "tokenizer", "unet", "scheduler"), device=str(accelerator.device))
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False).eval()
    state = first_state(config, network.unet, target.unet)

    root = folder / "checkpoints"
    newest = checkpoint.newest_whole(root, accelerator.print)
    start = checkpoint.restore(newest, state) if newest else 0
    if newest:
        accelerator.print(f"going on from {newest}")
    student = accelerator.prepare(network)
    journal = Journal(folder / "journal.jsonl", start) if accelerator.is_main_process else None
    data = Latents(Path(plan.latents), "train")
    window: list[Tensor] = []  # what `train_step` returned for the steps that the journal does not have yet
    skips = Skips(config, root)
    clock = time.perf_counter()
    steps = range(start, config.steps)
    place = accelerator.process_index, accelerator.num_processes
    with (
        closing(prepared(plan, data, model.latent_shape, objective.schedule.T, steps, *place)) as batches,
        progress(steps, "train", disable=not accelerator.is_main_process, initial=start, total=config.steps) as bar,
    ):
        for step, micro_batches in zip(bar, batches, strict=True):
            micro_batches = [batch.to(accelerator.device) for batch in micro_batches]
            for group in state.optimizer.param_groups:
                group["lr"] = lr_at(config, step)
            window.append(train_step(objective, accelerator, student, target, state, micro_batches))
            done, stopping = step + 1, stop.agreed(accelerator)
            saving = stopping or done == config.steps or done % config.checkpoint_every == 0
            if saving or done % config.log_every == 0:
                values = over_ranks(accelerator, torch.stack(window)).tolist()
                rate = config.batch * len(window) / (time.perf_counter() - clock)
                if journal:
                    journal.write(lines(values, done, rate, config))
                skips.count(values, done)
                bar.set_postfix(loss=f"{values[-1][0]:.4f}", samples_s=f"{rate:.0f}", **skips.told, refresh=False)
                window, clock = [], time.perf_counter()
            if saving and accelerator.is_main_process:
                checkpoint.save(root, done, plan.fingerprint, state, accelerator.num_processes)
                checkpoint.thin(root, config.keep)
            if stopping:
                accelerator.print(f"stopped by SIGTERM after step {done}; the same command again goes on from there")
                break
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return STOPPED if stop.asked else 0


class Stop:
    """Inside its block: set by SIGTERM, agreed on by all ranks at the end of a step."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True

    def agreed(self, accelerator: Accelerator) -> bool:
        if accelerator.num_processes > 1:
            flag = torch.tensor(float(self.asked), device=accelerator.device)
            self.asked = bool(accelerator.reduce(flag, "sum").item())
        return self.asked


class Skips:
    """Counts the steps that were skipped because their gradient was not finite, and stops a run that only skips."""

    def __init__(self, config: Train, root: Path) -> None:
        self.config, self.root = config, root
        self.total = self.in_a_row = 0

    def count(self, values: list[list[float]], done: int) -> None:
        """Of the steps up to number `done`. Raises `SlamError` after `train.skips` of them in a row."""
        for _, _, skipped, scale in values:
            if not skipped:
                self.in_a_row = 0
            elif scale <= FLOOR:  # above it, fp16 is still looking for its scale
                self.in_a_row += 1
            self.total += bool(skipped)
        if self.in_a_row >= self.config.skips:
            raise SlamError(
                f"step {done}: the gradient of the last {self.in_a_row} steps was not finite (train.skips = "
                f"{self.config.skips}). They were skipped, {self.total} in all: weights and average are as before "
                f"them, and the checkpoints in {self.root} are good. Try a lower train.lr, now {self.config.lr}, "
                f"or another train.precision, now {self.config.precision}"
            )

    @property
    def told(self) -> dict[str, int]:
        return {"skipped": self.total} if self.total else {}


def lr_at(config: Train, step: int) -> float:
    """The learning rate of step `step`, counted from 0: a rise over `warmup` steps, then constant or a linear fall."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.decay == "linear":
        return config.lr * (config.steps - step) / (config.steps - config.warmup)
    return config.lr


def over_ranks(accelerator: Accelerator, values: Tensor) -> Tensor:
    return accelerator.reduce(values, "mean") if accelerator.num_processes > 1 else values


def lines(values: list[list[float]], done: int, rate: float, config: Train) -> list[dict]:
    """The journal's lines for the steps up to number `done`, counted from 1. JSON has no NaN: null stands for it."""
    common = {"samples_per_second": round(rate, 2), "time": round(time.time(), 3)}
    found = []
    for step, (loss, norm, skipped, scale) in enumerate(values, done - len(values) + 1):
        loss, norm = (value if math.isfinite(value) else None for value in (loss, norm))
        told = {"loss": loss, "grad_norm": norm, "skipped": int(skipped), "lr": lr_at(config, step - 1)}
        if config.precision == "fp16":
            told["loss_scale"] = scale
        found.append({"step": step, **told, **common})
    return found


if __name__ == "__main__":
    try:
        sys.exit(train(Path(sys.argv[1])))
    except SlamError as error:
        print(f"slam train: {error}", file=sys.stderr)
        sys.exit(1)
