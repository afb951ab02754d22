"""The picture beside the latents: what went in above what comes back out of the VAE, with the error of each.

S: side in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open

from slam.data.encode.pictures import Square, squares
from slam.data.encode.plan import Job, Manifest
from slam.data.encode.shards import Encoder
from slam.data.records import Raw
from slam.files import whole_file

SHOWN = 8  # the first of the shard
CELL, LARGEST = 96, 256  # pixels: a small picture is enlarged to at least CELL, a large one shrunk to LARGEST
GAP, MARGIN, LEFT, FOOT = 4, 12, 84, 26  # pixels


def write_sheet(path: Path, shard: Path, job: Job, manifest: Manifest, source: Raw, encoder: Encoder) -> None:
    """PNG of the first SHOWN samples of `shard`, which was made by `job`."""
    config, originals = encoder.config, []
    for found in squares(manifest.rows(job), source, config.resolution, SHOWN, encoder.threads):
        if isinstance(found, Square):
            originals.append(found.pixels)
        if len(originals) == SHOWN:
            break
    with safe_open(shard, framework="pt") as stored:
        latents = stored.get_slice("latents")[: len(originals)].float()
    with torch.inference_mode():
        decoded = [encoder.exact.decode(one[None].to(encoder.exact.vae.device))[0] for one in latents]
    with whole_file(path) as partial:
        draw_sheet(originals, [one.permute(1, 2, 0).cpu().numpy() for one in decoded]).save(partial, format="PNG")


def draw_sheet(originals: list[np.ndarray], decoded: list[np.ndarray]) -> Image.Image:
    """Pairs of uint8 [S, S, 3] as two rows, the PSNR under each."""
    pixels = len(originals[0])
    side = min(pixels * max(1, -(-CELL // pixels)), LARGEST)  # a whole factor: every pixel of a small one stays square
    width = LEFT + len(originals) * (side + GAP) - GAP + MARGIN
    canvas = Image.new("RGB", (width, MARGIN + 2 * side + GAP + FOOT), "white")
    ink, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for label, row in (("picture", 0), ("decoded", 1)):
        ink.text((MARGIN, MARGIN + row * (side + GAP) + side / 2), label, "black", font, anchor="lm")
    ink.text((MARGIN, MARGIN + 2 * side + GAP + FOOT / 2), "PSNR, dB", "dimgray", font, anchor="lm")
    for i, pair in enumerate(zip(originals, decoded, strict=True)):
        left = LEFT + i * (side + GAP)
        for row, picture in enumerate(pair):
            filter = Image.Resampling.NEAREST if side >= pixels else Image.Resampling.LANCZOS
            canvas.paste(Image.fromarray(picture).resize((side, side), filter), (left, MARGIN + row * (side + GAP)))
        foot = (left + side / 2, MARGIN + 2 * side + GAP + FOOT / 2)
        ink.text(foot, f"{psnr(*pair):.1f}", "dimgray", font, anchor="mm")
    return canvas


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; infinite when they are equal."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
