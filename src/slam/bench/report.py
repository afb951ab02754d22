"""`slam bench`: the measures, in words."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from slam.bench.cost import activations, flops, weights
from slam.bench.parts import NETWORKS, WatchedAccelerator, clock, now_and_then, outside, split, watched
from slam.bench.rate import machine, matmul_rate, now, peak_memory
from slam.bench.subject import Subject, make_subject, start
from slam.bench.switches import effect, gains
from slam.errors import SlamError
from slam.models.diffusion import LatentDiffusion
from slam.models.precision import PRECISIONS

GB, WARM_UP = 1e9, 3
MICRO_BATCH = 8  # of the estimate of memory


def bench(name: str, steps: int, side: int | None, switches: bool, slow: bool, **changes: object) -> Iterator[str]:
    """The lines of the report on the profile `name`, as they are found; with 0 `steps`, what is counted alone.

    Raises `SlamError` where the model would not fit into this machine's memory.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        subject = make_subject(name, Path(folder), side, **changes)
        model = subject.model("meta" if subject.drawn else "cpu")
        if steps:
            _check_fits(subject, model, device)
        yield from _subject(subject, device)
        counted = flops(subject, model)
        yield from _counted(subject, model, counted)
        del model
        if not steps:
            return
        yield from _measured(subject, device, counted, steps)
        if switches:
            yield from _switches(subject, device, max(1, steps // 2), slow)


def _subject(subject: Subject, device: torch.device) -> Iterator[str]:
    distill, train = subject.plan.distill, subject.plan.train
    rungs = distill.k // distill.k_phi if distill.multiple_estimation else 1
    what = f"{distill.method}, k = {distill.k}: {rungs} teacher step{'s' * (rungs > 1)}, batch {train.batch}"
    yield f"{subject.plan.teacher}: {what}, {train.precision}, on {machine(device)}"


def _counted(subject: Subject, model: LatentDiffusion, counted: dict[str, int]) -> Iterator[str]:
    train, unet = subject.plan.train, sum(value.numel() for value in model.unet.parameters())
    each = {part: count / 1e9 / train.batch for part, count in counted.items()}
    yield f"\ncounted from the code: {unet:,} parameters; GFLOP a sample {sum(each.values()):,.1f}"
    yield "  " + ", ".join(f"{part} {count:,.1f}" for part, count in each.items())
    held = weights(subject.plan, model)
    yield f"memory, ESTIMATED from the code, at micro-batch {MICRO_BATCH}, in GB:"
    yield "  " + ", ".join(f"{part} {size / GB:.2f}" for part, size in held.items() if size)
    for checkpointing in (False, True):
        kept = activations(subject, model, MICRO_BATCH, checkpointing)
        total = (sum(held.values()) + kept) / GB
        switch = f"train.checkpointing = {str(checkpointing).lower()}"
        yield f"  activations {kept / GB:.2f} with {switch}: together {total:.1f}"


def _check_fits(subject: Subject, model: LatentDiffusion, device: torch.device) -> None:
    needed = sum(weights(subject.plan, model).values())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed > free:
        raise SlamError(
            f"{subject.plan.teacher} needs {needed / GB:.1f} GB for its weights alone, and this machine has "
            f"{free / GB:.1f} GB free: --steps 0 prints what is counted"
        )


def _measured(subject: Subject, device: torch.device, counted: dict[str, int], steps: int) -> Iterator[str]:
    train = subject.plan.train
    run = start(subject, Accelerator(cpu=device.type == "cpu"))
    for number in range(WARM_UP):
        run.step(number)
    seconds = []
    for number in range(WARM_UP, WARM_UP + steps):
        before = now(device)
        run.step(number)
        seconds.append(now(device) - before)
    run.batches.close()
    what, memory = peak_memory(device)
    del run
    step, peak = statistics.median(seconds), matmul_rate(device, PRECISIONS[train.precision])
    achieved = sum(counted.values()) / step
    yield (
        f"\nmeasured, median of {steps} steps: {train.batch / step:.2f} samples/s, {1e3 * step:.1f} ms a step "
        f"({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}); peak memory {memory / GB:.2f} GB ({what})"
    )
    yield (
        f"{achieved / 1e12:.3f} TFLOP/s achieved: {achieved / peak:.0%} of the {peak / 1e12:.3f} TFLOP/s of a square "
        f"{train.precision} product here"
    )
    yield from _split(subject, device, counted, steps)


def _split(subject: Subject, device: torch.device, counted: dict[str, int], steps: int) -> Iterator[str]:
    watch, accelerator = clock(device), WatchedAccelerator(cpu=device.type == "cpu")
    accelerator.watch = watch
    run = start(subject.with_speed(graphs=False), accelerator, watched(watch))
    parts = split(run, watch, WARM_UP, steps)
    run.batches.close()
    parts |= now_and_then(run, accelerator, Path(subject.plan.latents))
    total = sum(parts.values())
    yield "\n| part | ms | share | GFLOP/s |\n| --- | ---: | ---: | ---: |"
    for part, spent in parts.items():
        rate = f"{counted[part] / spent / 1e6:,.0f}" if part in counted else ""
        yield f"| {part} | {spent:.2f} | {spent / total:.1%} | {rate} |"
    yield f"| step | {total:.2f} | 100% | {sum(counted.values()) / total / 1e6:,.0f} |"
    yield f"outside the networks ({', '.join(part for part in parts if part not in NETWORKS)}): {outside(parts):.1%}"


def _switches(subject: Subject, device: torch.device, steps: int, slow: bool) -> Iterator[str]:
    yield "\n| switch | default | samples/s with it, of those without | range | by processor time |"
    yield "| --- | --- | ---: | --- | ---: |"
    for gain in gains(subject, device, steps, slow):
        told = "", gain.note, ""
        if gain.ratio is not None:
            told = f"{gain.ratio:.2f}x", "{:.2f} to {:.2f}".format(*gain.spread), f"{gain.own:.2f}x"
        yield f"| {gain.name} | {'on' if gain.default else 'off'} | {' | '.join(told)} |"
    yield "the median of 5 rounds, the two trainings in turn"
    for frozen in ("bf16", "fp8"):
        moved = effect(subject, device, frozen)
        yield f"a {frozen} teacher moves the end of the sub-path by {moved:.2%} of the sub-path's length"
