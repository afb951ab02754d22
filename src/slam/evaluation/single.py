"""Pictures of one prompt: what `slam generate` does, by the code that a served model draws with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slam.errors import SlamError
from slam.files import whole_file
from slam.models.drawing import Painter, WrongRequestError


def draw_pictures(folder: Path, prompt: str, out: Path, **asked: Any) -> list[Path]:
    """Write the student in `folder`'s pictures of `prompt` to `out`, or of several to `OUT-0.png`, …; gives the paths.

    `asked` is what `Painter.draw` takes: steps, seed, guidance, height, width, images. Picture i is picture i of that
    seed in an evaluation, up to rounding. Raises `SlamError`.
    """
    if out.suffix.lower() != ".png":
        raise SlamError(f"--out {out}: expected a name that ends in .png")
    if not folder.is_dir():
        raise SlamError(f"--model {folder} is not a folder: expected a diffusers folder, such as models/student")
    if not (folder / "model_index.json").is_file():
        raise SlamError(
            f"--model {folder} is not a whole diffusers folder: expected model_index.json, as in models/student"
        )
    try:
        pictures = Painter(folder).draw([prompt], **asked)
    except WrongRequestError as error:
        raise SlamError(str(error)) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise SlamError(f"--model {folder} does not draw: {str(error).splitlines()[0]}") from None
    names = [out] if len(pictures) == 1 else [out.with_stem(f"{out.stem}-{i}") for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        with whole_file(name) as partial:
            picture.save(partial, format="PNG")
    return names
