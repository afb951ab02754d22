"""The matrix rate of this machine, measured: what a step's rate is held against."""

from __future__ import annotations

import platform
import resource
import time
from pathlib import Path

import torch

from slam.models.onednn import product

SIZE = {"cpu": 2048, "cuda": 8192}
ROUNDS = 5


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some square products, by the fastest library here."""
    size = SIZE.get(device.type, 2048)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    ways = [torch.mm]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        ways.append(lambda a, b: product(a, b, None))
    return 2 * size**3 / min(_seconds(way, a, b) for way in ways)


def _seconds(way, a: torch.Tensor, b: torch.Tensor) -> float:
    found = []
    for _ in range(ROUNDS):
        start = now(a.device)
        way(a, b)
        found.append(now(a.device) - start)
    return min(found)


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> tuple[str, int]:
    """What it is, and bytes."""
    if device.type == "cuda":
        return "CUDA's allocator", torch.cuda.max_memory_allocated(device)
    return "resident, of the whole process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    file = Path("/proc/cpuinfo")  # of Linux
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
