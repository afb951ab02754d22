"""Where a step's time goes, without a word about it in the step: hooks on its networks and its optimizer.

At every moment one part is running: the parts add up to the step. On a GPU the moments are CUDA events, in the order
of the device, and nothing waits for them before the end.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from slam.bench.rate import now
from slam.bench.subject import Run
from slam.training.checkpoint import snapshot
from slam.training.journal import Journal
from slam.training.meter import Meter, lines
from slam.training.state import ema_gap
from slam.training.step import Objective

PARTS = ("data", "text", "teacher", "target", "student forward", "backward", "clip", "optimizer", "EMA", "rest")
LOOP = ("logging", "checkpoint")  # now and then: a step's share of it
NETWORKS = ("text", "teacher", "target", "student forward", "backward")
REST = "rest"  # draws to points and distances: Algorithm 1's own arithmetic


class Watch:
    """`begin(part)` ends the part before it. `read` gives the moment in any unit that can be subtracted."""

    def __init__(self, read: Callable, between: Callable) -> None:
        self.read, self.between = read, between
        self.marks: list[tuple[str, object]] = []

    def begin(self, part: str) -> None:
        self.marks.append((part, self.read()))

    def totals(self) -> dict[str, float]:
        """Of each part that was begun, all its stretches together."""
        found: dict[str, float] = defaultdict(float)
        for (part, start), (_, end) in zip(self.marks, self.marks[1:], strict=False):
            found[part] += self.between(start, end)
        return {part: found[part] for part in PARTS if part in found}


def clock(device: torch.device) -> Watch:
    """In milliseconds."""
    if device.type == "cuda":

        def read() -> torch.cuda.Event:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event

        return Watch(read, lambda start, end: start.elapsed_time(end))
    return Watch(time.perf_counter, lambda start, end: 1e3 * (end - start))


class WatchedAccelerator(Accelerator):
    """Says when the backward pass runs."""

    watch: Watch

    def backward(self, loss: torch.Tensor, **options: object) -> None:
        self.watch.begin("backward")
        super().backward(loss, **options)
        self.watch.begin("clip")


def watched(watch: Watch) -> Callable:
    """For `subject.start`: the same networks, with hooks."""

    def hook(network: nn.Module, part: str) -> nn.Module:
        # Plain functions: a copy of the network (the target in low precision) keeps them as they are.
        network.register_forward_pre_hook(lambda *_: watch.begin(part))
        network.register_forward_hook(lambda *_: watch.begin(REST))
        return network

    def watch_all(objective: Objective, student: nn.Module, target: nn.Module, optimizer: torch.optim.Optimizer):
        embed = objective.embed

        def timed_embed(input_ids: torch.Tensor) -> torch.Tensor:
            watch.begin("text")
            context = embed(input_ids)
            watch.begin(REST)
            return context

        optimizer.register_step_pre_hook(lambda *_: watch.begin("optimizer"))
        optimizer.register_step_post_hook(lambda *_: watch.begin("EMA"))
        objective = objective._replace(embed=timed_embed, teacher=hook(objective.teacher, "teacher"))
        return objective, hook(student, "student forward"), hook(target, "target"), optimizer

    return watch_all


def split(run: Run, watch: Watch, warm_up: int, steps: int) -> dict[str, float]:
    """Milliseconds of each part in a step, the mean of `steps` after `warm_up`. `run` has to be watched by `watch`."""
    for number in range(warm_up):
        run.step(number)
    watch.marks.clear()
    for _ in range(steps):
        watch.begin("data")
        micro_batches = [batch.to(run.device) for batch in next(run.batches)]
        watch.begin(REST)
        run.take(micro_batches)
    watch.begin("end")
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
    return {part: total / steps for part, total in watch.totals().items()}


def now_and_then(run: Run, accelerator: Accelerator, folder: Path) -> dict[str, float]:
    """Milliseconds of a step's share in the journal and in checkpoints, of which the loop waits for the copy alone
    (where the one before is written by then)."""
    config = run.subject.plan.train
    meter, journal = Meter(config.batch), Journal(folder / "journal.jsonl", 0)

    def log(turn: int) -> None:
        reading = meter.read(accelerator, (turn + 1) * config.log_every)
        journal.write(lines(reading, {"ema_gap": ema_gap(run.state).item()}, config))

    logged = []
    for turn in range(5):
        for _ in range(config.log_every):
            meter.add(torch.zeros(4, device=run.device))
        logged.append(_milliseconds(partial(log, turn), run.device))
    copying = statistics.median(_milliseconds(partial(snapshot, run.state), run.device) for _ in range(3))
    return dict(
        zip(LOOP, (statistics.median(logged) / config.log_every, copying / config.checkpoint_every), strict=True)
    )


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    before = now(device)
    work()
    return 1e3 * (now(device) - before)


def outside(parts: dict[str, float]) -> float:
    """The share of a step that is not in a network."""
    return 1 - sum(parts.get(part, 0.0) for part in NETWORKS) / sum(parts.values())
