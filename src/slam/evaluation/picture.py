"""The picture of an evaluation: captions down the rows, samplers across the columns, the same noise in each row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slam.evaluation.report import title
from slam.files import whole_file

CELL = 96  # least pixels a side of a picture
LARGEST = 256  # larger pictures are scaled down to this
GAP, GROUP_GAP = 4, 16  # pixels between pictures, and between the columns of two samplers
HEAD = 52  # pixels above the pictures
LETTER = 8  # pixels of a letter of the captions, about
CAPTION = 176  # pixels left of the pictures


def write_samples(columns: Sequence[tuple[dict, np.ndarray]], captions: Sequence[str], path: Path) -> None:
    """PNG of `columns`: each a record (model, sampler, steps) with its pictures uint8 [len(captions), H, W, 3]."""
    with whole_file(path) as partial:
        draw_samples(columns, captions).save(partial, format="PNG")


def draw_samples(columns: Sequence[tuple[dict, np.ndarray]], captions: Sequence[str]) -> Image.Image:
    side = cell_side(columns[0][1].shape[1])
    lefts, right = places(columns, side)
    canvas = Image.new("RGB", (right + GAP, HEAD + len(captions) * (side + GAP)), "white")
    ink = ImageDraw.Draw(canvas)
    large, small = ImageFont.load_default(16), ImageFont.load_default(14)
    for name, members in groupby(range(len(columns)), key=lambda i: head(columns[i][0])):
        members = list(members)
        middle = (lefts[members[0]] + lefts[members[-1]] + side) / 2
        ink.text((middle, 14), name, "black", large, anchor="mm")
        for i in members:
            steps = columns[i][0]["steps"]
            ink.text((lefts[i] + side / 2, 38), f"{steps} step{'s' * (steps > 1)}", "dimgray", small, anchor="mm")
    for row, text in enumerate(captions):
        top = HEAD + row * (side + GAP)
        wrapped = "\n".join(textwrap.wrap(text, CAPTION // LETTER, max_lines=side // 20, placeholder=" …"))
        ink.multiline_text((8, top + side / 2), wrapped, "black", small, anchor="lm", spacing=5)
        for left, (_, pictures) in zip(lefts, columns, strict=True):
            canvas.paste(scaled(pictures[row], side), (left, top))
    return canvas


def cell_side(pixels: int) -> int:
    """At least CELL by a whole factor, so that every pixel of a small picture stays a square; at most LARGEST."""
    return min(pixels * max(1, -(-CELL // pixels)), LARGEST)


def scaled(picture: np.ndarray, side: int) -> Image.Image:
    filter = Image.Resampling.NEAREST if side >= len(picture) else Image.Resampling.LANCZOS
    return Image.fromarray(picture).resize((side, side), filter)


def places(columns: Sequence[tuple[dict, np.ndarray]], side: int) -> tuple[list[int], int]:
    """The left edge of every column, and the right edge of the last."""
    lefts, x, last = [], CAPTION - GROUP_GAP, None
    for record, _ in columns:
        name = head(record)
        x += GAP if name == last else GROUP_GAP
        lefts.append(x)
        x, last = x + side, name
    return lefts, x


def head(record: dict) -> str:
    """What stands over a group of columns: the teacher at many steps, a training-free sampler, or the student."""
    return f"teacher, {title(record)}" if record["model"] == "teacher" and record["steps"] >= 20 else title(record)
