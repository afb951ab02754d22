"""Two or more trainings that take turns, so that what else the machine does falls on all of them.

Each is in a process of its own: what one does to its memory (`train.speed.keep_memory`) is in no other's measure.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from slam.bench.rate import now
from slam.bench.subject import Subject, start

WARM_UP = 4  # steps; a graph is captured in the fourth


class Spent(NamedTuple):
    """Seconds, by the clock and of the processor: these count little what else runs on the machine."""

    wall: float
    own: float


Training = Callable[..., AbstractContextManager[Callable[[int], Any]]]  # gives `step(number) -> loss`


@contextlib.contextmanager
def training(subject: Subject) -> Iterator[Callable[[int], Any]]:
    run = start(subject, Accelerator(cpu=not torch.cuda.is_available()))
    try:
        yield lambda number: run.step(number)[0]
    finally:
        run.batches.close()


class Worker:
    """`training(*arguments)` in a process, which starts while the caller goes on."""

    def __init__(self, training: Training, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, training, arguments), daemon=True)
        self.process.start()
        there.close()

    @functools.cached_property
    def losses(self) -> list[float]:
        """Of its first WARM_UP steps; waits for them."""
        return self.pipe.recv()

    def seconds(self, steps: int) -> Spent:
        self.pipe.send(steps)
        return self.pipe.recv()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.pipe.close()
        self.process.join()


def _work(pipe: Connection, training: Training, arguments: Sequence[Any]) -> None:
    device, numbers = torch.device("cuda" if torch.cuda.is_available() else "cpu"), count()
    with training(*arguments) as step, contextlib.suppress(EOFError):  # the other end was closed: no more is asked for
        pipe.send([float(step(next(numbers))) for _ in range(WARM_UP)])
        while True:
            steps, before, own = pipe.recv(), now(device), time.process_time()
            for _ in range(steps):
                step(next(numbers))
            pipe.send(Spent(now(device) - before, time.process_time() - own))


def in_turn(workers: Sequence[Worker], rounds: int, steps: int) -> Iterator[list[Spent]]:
    """What `steps` steps of each take, `rounds` times, once all are warm."""
    for worker in workers:
        _ = worker.losses
    for _ in range(rounds):
        yield [worker.seconds(steps) for worker in workers]
