"""The whole training step as one CUDA graph: no launch is paid for, kernel by kernel, from the second replay on.

A graph reads and writes fixed addresses, so the batch is copied into buffers, and the learning rate is a tensor. The
steps before the capture run as they are, on a stream of their own: they are steps of the run like any other, in which
the libraries choose their kernels and the optimizer makes its moments. Capturing computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from slam.errors import SlamError
from slam.training.step import Batch

WARM_UP = 3  # steps, as PyTorch's notes on CUDA graphs have it

Step = Callable[[list[Batch]], Tensor]


def check_graphs(device: torch.device, processes: int, precision: str) -> None:
    """Raises `SlamError` where `train.speed.graphs` cannot be."""
    if device.type != "cuda":
        raise SlamError(f"train.speed.graphs = true needs a CUDA device, found {device.type}: set it to false")
    if processes > 1:
        raise SlamError(
            f"train.speed.graphs = true with {processes} processes: the exchange of gradients cannot be captured yet. "
            "Set it to false, or train.processes to 1"
        )
    if precision == "fp16":
        raise SlamError("train.speed.graphs = true with train.precision = fp16: set it to false, or bf16")


def tensors(batches: list[Batch]) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(batches) if leaf is not None]  # a draw may have no gamma


def copy_into(buffers: list[Batch], batches: list[Batch]) -> None:
    """The values of `batches` in the tensors of `buffers`. Raises ValueError for other shapes: a graph has one."""
    pairs = list(zip(tensors(buffers), tensors(batches), strict=True))
    for buffer, value in pairs:
        if buffer.shape != value.shape:
            raise ValueError(f"a step of {tuple(value.shape)} where {tuple(buffer.shape)} was captured")
    for buffer, value in pairs:
        buffer.copy_(value, non_blocking=True)


class RateTensor:
    """The optimizer's learning rate as one tensor that keeps its address, set from the number that the loop wrote."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.groups = optimizer.param_groups
        self.value = torch.zeros((), device=device)

    def take_over(self) -> None:
        self.value.fill_(self.groups[0]["lr"])
        for group in self.groups:
            group.update(lr=self.value, capturable=True)


class GraphedStep:
    """`step`, captured after WARM_UP calls and replayed from then on; returns its result in fresh memory."""

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.step, self.rate = step, RateTensor(optimizer, device)
        self.side = torch.cuda.Stream(device)
        self.calls, self.graph = 0, None

    def __call__(self, micro_batches: list[Batch]) -> Tensor:
        self.rate.take_over()
        if self.calls < WARM_UP:
            self.calls += 1
            return self._aside(micro_batches)
        if self.graph is None:
            self.buffers = tree_map_only(Tensor, torch.clone, micro_batches)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.result = self.step(self.buffers)
        copy_into(self.buffers, micro_batches)
        self.graph.replay()
        return self.result.clone()

    def _aside(self, micro_batches: list[Batch]) -> Tensor:
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            result = self.step(micro_batches)
        torch.cuda.current_stream().wait_stream(self.side)
        return result
