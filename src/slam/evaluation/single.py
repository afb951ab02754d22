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


def draw_picture(folder: Path, prompt: str, steps: int, seed: int, out: Path, guidance: float | None = None) -> None:
    """Write the student in `folder`'s picture of `prompt` to `out`: it is picture 0 of `seed`, as in an evaluation.

    A student that is told its guidance scale needs one; the others have learnt theirs, and None means 1, no further.
    """
    if out.suffix.lower() != ".png":
        raise SlamError(f"--out {out}: expected a name that ends in .png")
    if not prompt.strip():
        raise SlamError("the prompt is empty: say what to draw")
    if not folder.is_dir():
        raise SlamError(f"--model {folder} is not a folder: expected a diffusers folder, such as models/student")
    model = load(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    if model.told_w and guidance is None:
        raise SlamError(f"the student in {folder} is told its guidance scale: add --guidance, such as 5")
    (drawn,) = generate(
        model, [prompt], sampler="lcm", steps=steps, guidance=guidance or 1.0, seed=seed, batch=1, label="draw"
    )
    with whole_file(out) as partial:
        Image.fromarray(rows(drawn.pictures)[0]).save(partial, format="PNG")
