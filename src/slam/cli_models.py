"""The commands of `slam` that are about a finished model; `cli.py` has the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    prompt: Annotated[str, typer.Argument(help="what to draw")],
    steps: Annotated[int, typer.Option(min=1, max=50, help="1 to 4 is what a student is for")] = 4,
    out: Annotated[Path, typer.Option(help="the PNG to write")] = Path("picture.png"),
    model: Annotated[Path | None, typer.Option(help="a diffusers folder; the champion by default")] = None,
    seed: Annotated[int, typer.Option(min=0, help="the same seed draws the same picture")] = 0,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="for a student that is told it (lcm_w); others have learnt theirs")
    ] = None,
) -> None:
    """Draw a picture with the champion, or with `--model DIR`."""
    from slam.evaluation.single import draw_picture

    if model is None:
        from slam.registry.champion import champion_folder

        model = champion_folder()
    draw_picture(model, prompt, steps, seed, out, guidance)
    print(out)


def local_folder(model: str) -> str:
    """`model`, or the folder of a version in MLflow's registry that models:/NAME@ALIAS names."""
    if not model.startswith("models:"):
        return model
    from slam.registry.champion import model_folder

    return str(model_folder(model))
