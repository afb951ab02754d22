"""What a student cost, and where and with what it was registered."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import distributions
from pathlib import Path

import psutil
import torch

from slam.training.journal import read_journal
from slam.training.plan import read_plan


def cost(folder: Path) -> dict[str, float]:
    """Of the training in `folder`, as metrics; {} if there was none. What a kill made it do twice is counted once.

    device_hours: GPU hours, or hours of a CPU process. teacher_evaluations: passes of one latent through its U-Net.
    """
    if not (folder / "plan.json").exists():
        return {}
    plan = read_plan(folder)
    rates = [line["samples_per_second"] for line in read_journal(folder / "journal.jsonl")]
    rungs = plan.distill.k // plan.distill.k_phi if plan.distill.multiple_estimation else 1
    samples = plan.train.batch * len(rates)
    return {
        "cost/samples": samples,
        "cost/teacher_evaluations": samples * rungs * 2,  # with the prompt and without
        "cost/device_hours": plan.train.processes * sum(plan.train.batch / rate / 3600 for rate in rates if rate),
    }


def packages() -> list[str]:
    """name==version of everything installed, sorted."""
    return sorted({f"{item.name.lower()}=={item.version}" for item in distributions()})


def machine(root: Path) -> dict[str, str]:
    """Tags of the machine that registers; that the training ran on it is usual and not checked."""
    lock = root / "requirements.lock"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "hardware.cpu": f"{os.cpu_count()} x {_cpu()}",
        "hardware.memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "hardware.gpu": ", ".join(gpus) or "none",
        "environment.python": platform.python_version(),
        "environment.system": platform.platform(),
        "environment.packages_sha256": hashlib.sha256("\n".join(packages()).encode()).hexdigest(),
        **({"environment.lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.exists() else {}),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
