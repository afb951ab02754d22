import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from slam.evaluation.picture import draw_samples, write_samples
from slam.evaluation.report import markdown, print_table


def record(model, sampler, steps, guidance, fid, faithfulness=0.5):
    metrics = {"fid": fid, "clip_score": 61.25, "faithfulness": faithfulness, "captions_right": faithfulness}
    row = {"model": model, "sampler": sampler, "steps": steps, "guidance": guidance}
    return row | metrics | {"seconds_per_image": 0.01234, "n": 64, "seed": 2, "protocol": "tiny-v1"}


RECORDS = [
    record("vae", "reconstruction", 0, 1.0, 0.5, 0.98),
    record("teacher", "ddim", 50, 3.0, 3.456, 0.91),
    record("teacher", "dpm++", 1, 3.0, 35.9, None),
    record("student", "lcm", 1, 1.0, 9.0, 0.5),
]

MARKDOWN = """\
| model | sampler | steps | guidance | FID | CLIP score | faithful | captions right | ms each |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| vae | autoencoder | - | - | 0.50 | 61.2 | 98.0% | 98.0% | 12.3 |
| teacher | DDIM | 50 | 3 | 3.46 | 61.2 | 91.0% | 91.0% | 12.3 |
| teacher | DPM-Solver++ | 1 | 3 | 35.90 | 61.2 | - | - | 12.3 |
| student | LCM | 1 | 1 | 9.00 | 61.2 | 50.0% | 50.0% | 12.3 |

64 pictures a row, seed 2, protocol tiny-v1.
"""


def test_the_markdown_table():
    assert markdown(RECORDS) == MARKDOWN


def test_a_terminal_of_80_columns_shows_the_same_cells():
    terminal = Console(file=io.StringIO(), width=80)
    print_table(RECORDS, terminal)
    shown = [line.split() for line in terminal.file.getvalue().splitlines()]
    for line in MARKDOWN.splitlines()[2:6]:
        assert [cell.strip() for cell in line.strip("|").split("|")] in shown


def columns(side):
    return [(row, np.full((2, side, side, 3), 40 * i, np.uint8)) for i, row in enumerate(RECORDS[1:])]


@pytest.mark.parametrize(("side", "shown"), [(32, 96), (64, 128), (512, 256)])
def test_every_picture_is_shown_large_enough_to_judge(side, shown):
    canvas = np.asarray(draw_samples(columns(side), ["a red circle", "a very long caption " * 10]))
    for colour in (0, 40, 80):
        assert (canvas == colour).all(-1).sum() >= 2 * shown**2


def test_a_small_picture_is_enlarged_without_blur(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    write_samples([(RECORDS[1], pixels)], ["a red circle"], tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as stored:
        canvas = np.asarray(stored)
    enlarged = pixels[0].repeat(3, 0).repeat(3, 1)
    places = [
        (y, x)
        for y in range(canvas.shape[0] - 95)
        for x in range(canvas.shape[1] - 95)
        if (canvas[y, x] == enlarged[0, 0]).all() and (canvas[y : y + 96, x : x + 96] == enlarged).all()
    ]
    assert len(places) == 1
