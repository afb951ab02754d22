"""The global batch of a step, and a rank's share of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch

from slam.ahead import ahead
from slam.core.draw import Draw, make_draw, posterior_noise
from slam.core.methods import METHODS
from slam.data.latents import Latents, batch_indices
from slam.training.contexts import Encoded
from slam.training.plan import Plan
from slam.training.step import Batch

AHEAD = 2  # steps

Data = Latents | Encoded


def global_draw(plan: Plan, shape: tuple[int, int, int], T: int, step: int) -> Draw:
    """All randomness of `step` for the whole batch of latents [C, h, w]: the same whatever the number of processes."""
    distill, config = plan.distill, plan.train
    method = METHODS[distill.method]
    guidance = {"w_min": distill.w_min, "w_max": distill.w_max} if distill.w_min else {"w": distill.w}
    return make_draw(
        config.seed,
        step,
        config.batch,
        shape,
        T=T,
        k=distill.k,
        k_phi=distill.k_phi,
        gamma_law=partial(method.gamma_law, at_1=distill.gamma_at_1),
        w_law=partial(method.w_law, **guidance),
        multiple_estimation=distill.multiple_estimation,
    )


def local_batches(plan: Plan, data: Data, draw: Draw, step: int, rank: int, ranks: int) -> list[Batch]:
    """Share `rank` of `ranks` of the global batch of `step`, in micro-batches, on the CPU."""
    config = plan.train
    indices = batch_indices(len(data), config.batch, config.seed, step)
    noise = posterior_noise(config.seed, step, config.batch, tuple(draw.noise.shape[1:])) if data.has_std else None
    share = config.batch // ranks
    size = config.micro_batch or share
    first = share * rank
    batches = []
    for begin in range(first, first + share, size):
        part = slice(begin, begin + size)
        latents, text = data.gather(indices[part], None if noise is None else noise[part])
        batches.append(Batch(latents, text, draw.rows(part)))
    return batches


def prepared(
    plan: Plan, data: Data, shape: tuple[int, int, int], T: int, steps: Iterable[int], rank: int, ranks: int
) -> Iterator[list[Batch]]:
    """The micro-batches of each of `steps`, made in a thread while the step before is computed; pinned for a GPU."""
    pinning = torch.cuda.is_available()

    def make(step: int) -> list[Batch]:
        batches = local_batches(plan, data, global_draw(plan, shape, T, step), step, rank, ranks)
        return [batch.pinned() for batch in batches] if pinning else batches

    # Work that PyTorch splits over threads would have threads of its own in this one. Where there are more of them than
    # cores, OpenMP's wait for each other asleep: a tiny step on two cores took 160 ms, not 80.
    return ahead(make, steps, depth=AHEAD, begin=partial(torch.set_num_threads, 1))
