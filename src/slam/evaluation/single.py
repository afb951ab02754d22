"""One picture from one prompt: what `slam generate` does."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from slam.errors import SlamError
from slam.evaluation.features import rows
from slam.evaluation.generate import generate
from slam.files import whole_file
from slam.models.diffusion import load


def draw_picture(folder: Path, prompt: str, steps: int, seed: int, out: Path) -> None:
    """Write the student in `folder`'s picture of `prompt` to `out`: it is picture 0 of `seed`, as in an evaluation."""
    if out.suffix.lower() != ".png":
        raise SlamError(f"--out {out}: expected a name that ends in .png")
    if not prompt.strip():
        raise SlamError("the prompt is empty: say what to draw")
    if not folder.is_dir():
        raise SlamError(f"--model {folder} is not a folder: expected a diffusers folder, such as models/student")
    model = load(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    (drawn,) = generate(model, [prompt], sampler="lcm", steps=steps, seed=seed, batch=1, label="draw")
    with whole_file(out) as partial:
        Image.fromarray(rows(drawn.pictures)[0]).save(partial, format="PNG")
