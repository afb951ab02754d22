"""The global batch of a step, and a rank's share of it."""

from __future__ import annotations

from functools import partial

from accelerate import Accelerator

from slam.core.draw import Draw, make_draw
from slam.core.methods import METHODS
from slam.data.latents import Latents, batch_indices
from slam.training.plan import Plan
from slam.training.step import Batch


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


def local_batches(plan: Plan, data: Latents, draw: Draw, step: int, accelerator: Accelerator) -> list[Batch]:
    """This rank's share of the global batch of `step`, in micro-batches."""
    config, device = plan.train, accelerator.device
    indices = batch_indices(len(data), config.batch, config.seed, step)
    share = config.batch // accelerator.num_processes
    size = config.micro_batch or share
    first = share * accelerator.process_index
    batches = []
    for begin in range(first, first + share, size):
        part = slice(begin, begin + size)
        latents, input_ids = data.gather(indices[part])
        batches.append(Batch(latents.to(device), input_ids.to(device), draw.rows(part).to(device)))
    return batches
