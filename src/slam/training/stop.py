"""SIGTERM, and how all ranks agree on it without holding each other up."""

from __future__ import annotations

import signal
from datetime import timedelta

import torch
import torch.distributed as dist

# A rank that others wait for longer than this hangs: they end, and so the run. (One that dies is known at once. Nothing
# that a rank does alone between two steps takes minutes: rank 0's next checkpoint waits for the last to be written.)
SILENCE = timedelta(minutes=10)


class Stop:
    """Inside its block SIGTERM asks for a stop. Ranks agree on it: any rank's signal stops all after the same step.

    The flags of a step are summed among the CPUs while the next step is computed, and read at its end: nothing waits
    for a device, nor a rank for another that is less than a step behind. A stop so comes up to two steps after the
    signal; with one process, at the end of the step.
    """

    def __init__(self) -> None:
        self.asked = False
        self._group = None
        self._sum: tuple[dist.Work, torch.Tensor] | None = None

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True

    def agreed(self, processes: int) -> bool:
        """To be called by every rank at the end of each step; the same answer in all."""
        if processes == 1:
            return self.asked
        self._group = self._group or dist.new_group(backend="gloo", timeout=SILENCE)
        told = self.settle()
        flag = torch.tensor(float(self.asked))
        self._sum = dist.all_reduce(flag, group=self._group, async_op=True), flag
        return told

    def settle(self) -> bool:
        """Waits for the sum that is under way, as must be done before the processes part."""
        if self._sum is None:
            return False
        work, flag = self._sum
        work.wait()
        self._sum = None
        return bool(flag.item())
