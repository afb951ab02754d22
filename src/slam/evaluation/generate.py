"""Draws pictures from captions. Picture i depends on (model, caption i, sampler, seed, i), on no other and no order.

N captions, B batch, C h w latent, H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from slam.errors import SlamError
from slam.evaluation.samplers import sample
from slam.models.diffusion import LatentDiffusion
from slam.models.drawing import stream
from slam.progress import batches


class Drawn(NamedTuple):
    """One batch of pictures."""

    rows: slice  # of the captions
    pictures: Tensor  # uint8 [B, 3, H, W], on the CPU
    # Their share of the pass: the sampler's network passes and steps, and the decoder; no text encoder, no disk
    seconds: float


def generate(
    model: LatentDiffusion,
    captions: Sequence[str],
    *,
    sampler: str,
    steps: int,
    guidance: float = 1.0,
    seed: int,
    batch: int,
    label: str,
    rows: range | None = None,
    fill: bool = False,
    quiet: bool = False,
) -> Iterator[Drawn]:
    """One picture for each caption, or for those of `rows`, batch by batch, under a progress bar unless `quiet`.

    With `fill` the networks see exactly `batch` pictures every time, copies of the last one filling the last batch:
    the last bits of a picture depend on how many are drawn at once, and uint8 shows a few of them.
    Raises `SlamError` when latents are not finite or a picture is blank: no metric can be trusted after that.
    """
    rows = range(len(captions)) if rows is None else rows
    with torch.inference_mode():
        null_context = model.embed([""])
    for part in batches(len(rows), batch, label, quiet):
        own = rows[part]
        indices = [*own, *[own[-1]] * (batch - len(own) if fill else 0)]
        latents, pictures, seconds = paint(
            model, [captions[i] for i in indices], indices, null_context, sampler, steps, guidance, seed
        )
        refuse_broken(latents[: len(own)], pictures[: len(own)], own.start, label)
        yield Drawn(slice(own.start, own.stop), pictures[: len(own)].cpu(), seconds * len(own) / len(indices))


@torch.inference_mode()
def paint(
    model: LatentDiffusion,
    captions: Sequence[str],
    indices: Sequence[int],
    null_context: Tensor,
    sampler: str,
    steps: int,
    guidance: float,
    seed: int,
) -> tuple[Tensor, Tensor, float]:
    """The pictures `indices` of `seed`, one for each of `captions`: latents [B, C, h, w], pictures uint8 [B, 3, H, W],
    both on the model's device, and the seconds that the network passes and steps and the decoder took."""
    device, dtype = model.unet.device, model.unet.dtype
    own = streams(seed, indices)
    first = draw(own, model.latent_shape).to(device)
    context = model.embed(captions)
    begin = clock(device)
    latents = sample(
        model,
        context,
        null_context,
        first,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        generator=own,
    )
    pictures = model.decode(latents.to(dtype))
    return latents, pictures, clock(device) - begin


def streams(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """A CPU generator for each picture, seeded by (seed, index) alone."""
    return [stream(seed, index) for index in indices]


def draw(own: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """The next standard normal noise [B, *shape], row i from generator i."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in own])


def noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The noise [B, *shape] that the pictures `indices` of `seed` begin with."""
    return draw(streams(seed, indices), shape)


def clock(device: torch.device) -> float:
    """Seconds, after all work queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def refuse_broken(latents: Tensor, pictures: Tensor, start: int, label: str) -> None:
    flat = pictures.flatten(1)
    broken = ~latents.isfinite().flatten(1).all(1) | (flat.amax(1) == flat.amin(1))
    if broken.any():
        index = start + int(broken.nonzero()[0])
        raise SlamError(
            f"{label}: expected pictures, found picture {index} blank or not finite: the model has diverged, or its"
            " weights do not fit its config; train it again or choose another checkpoint"
        )
