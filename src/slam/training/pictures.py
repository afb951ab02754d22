"""What the target draws in the course of training: the same captions and noise each time, so that pictures compare."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from slam.core.sample import sample
from slam.data.latents import Latents
from slam.files import whole_file
from slam.models.diffusion import LatentDiffusion
from slam.models.predictor import NoisePredictor
from slam.training.plan import Plan
from slam.training.step import Objective

ROWS = 8  # captions, the first held-out ones
STEPS = (1, 2, 4)  # of the sampler
SIDE = 128  # least pixels of a picture; larger ones are scaled down to twice that
GAP, HEAD, CAPTION = 6, 34, 190  # pixels: between pictures, above them, left of them


@torch.no_grad()
def draw_pictures(
    plan: Plan, objective: Objective, model: LatentDiffusion, target: NoisePredictor, held_out: Latents, path: Path
) -> None:
    """PNG at `path`: a row a caption; the held-out picture itself, then what `target` draws of it in STEPS steps.

    `model` has the VAE. All randomness comes from generators of its own.
    """
    shown = np.arange(min(ROWS, len(held_out)))
    latents, ids = held_out.gather(shown)
    device, c = objective.null.device, objective.embed(ids)
    guidance = torch.full((len(ids),), plan.distill.w, device=device)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(plan.train.seed)).to(device)

    def network(z: Tensor, t: Tensor, c: Tensor, gamma: None, w: None) -> Tensor:
        return target(z, t, c, gamma, guidance)  # for a student that is told it

    columns = {"held out": latents.to(device)}
    for steps in STEPS:
        generator = torch.Generator().manual_seed(plan.train.seed + steps)
        with objective.autocast():
            drawn = sample(network, noise, c, steps, objective.schedule, generator)
        columns[f"{steps} step{'s' * (steps > 1)}"] = drawn.float()
    decoded = {title: [model.decode(one[None])[0] for one in part] for title, part in columns.items()}
    captions = [model.tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
    with whole_file(path) as partial:
        grid(captions, decoded).save(partial, format="PNG")


def grid(captions: list[str], columns: dict[str, list[Tensor]]) -> Image.Image:
    """`columns`: under each title, a picture uint8 [3, H, W] for each caption."""
    pixels = next(iter(columns.values()))[0].shape[-1]
    side = min(pixels * max(1, -(-SIDE // pixels)), 2 * SIDE)  # a whole factor: pixels of a small picture stay squares
    canvas = Image.new("RGB", (CAPTION + len(columns) * (side + GAP), HEAD + len(captions) * (side + GAP)), "white")
    ink, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for row, caption in enumerate(captions):
        text = "\n".join(textwrap.wrap(caption, CAPTION // 9, max_lines=side // 22, placeholder=" …"))
        ink.multiline_text((10, HEAD + row * (side + GAP) + side / 2), text, "black", font, anchor="lm", spacing=5)
    for column, (title, pictures) in enumerate(columns.items()):
        left = CAPTION + column * (side + GAP)
        ink.text((left + side / 2, HEAD / 2), title, "dimgray", font, anchor="mm")
        for row, picture in enumerate(pictures):
            image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
            scale = Image.Resampling.NEAREST if side >= pixels else Image.Resampling.LANCZOS
            canvas.paste(image.resize((side, side), scale), (left, HEAD + row * (side + GAP)))
    return canvas
