"""From what steps return to the journal's lines and the bar's numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from slam.config import Train


class Reading(NamedTuple):
    """The steps up to number `done`, counted from 1, of all ranks together."""

    done: int
    steps: list[list[float]]  # what `train_step` returned
    rate: float  # samples a second

    @property
    def told(self) -> dict[str, str]:
        """What the bar shows of the last step."""
        loss, norm, *_ = self.steps[-1]
        return {"loss": f"{loss:.4f}", "grad": f"{norm:.3g}", "samples_s": f"{self.rate:.0f}"}


class Meter:
    """Gathers what steps return, on the device, until it is read: nothing waits for the device before that."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._restart()

    def _restart(self) -> None:
        self.window: list[Tensor] = []
        self.begin = time.perf_counter()

    def add(self, values: Tensor) -> None:
        self.window.append(values)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done here does not count as time of the steps."""
        begin = time.perf_counter()
        yield
        self.begin += time.perf_counter() - begin

    def read(self, accelerator: Accelerator, done: int) -> Reading:
        """Waits for the device, and for the other ranks; the meter then begins anew."""
        values = torch.stack(self.window)
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values, "mean")
        steps = values.tolist()
        rate = per_second(self.batch * len(steps), time.perf_counter() - self.begin)
        self._restart()
        return Reading(done, steps, rate)


def lines(reading: Reading, facts: dict[str, float | None], config: Train) -> list[dict]:
    """The journal's lines; `facts` are of the last step alone."""
    common = {"samples_per_second": round(reading.rate, 2), "time": round(time.time(), 3)}
    found = []
    for step, (loss, norm, skipped, scale) in enumerate(reading.steps, reading.done - len(reading.steps) + 1):
        line = {"step": step, "loss": finite(loss), "grad_norm": finite(norm), "skipped": int(skipped)}
        line["lr"] = lr_at(config, step - 1)
        if config.precision == "fp16":
            line["loss_scale"] = scale
        found.append(line | common)
    found[-1] |= facts
    return found


def lr_at(config: Train, step: int) -> float:
    """The learning rate of step `step`, counted from 0: a rise over `warmup` steps, then constant or a linear fall."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.decay == "linear":
        return config.lr * (config.steps - step) / (config.steps - config.warmup)
    return config.lr


def finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: null stands for them."""
    return value if math.isfinite(value) else None


def per_second(count: int, seconds: float) -> float:
    """0 where the clock stood still or went backwards."""
    return count / seconds if seconds > 0 else 0.0
