import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from slam.evaluation.picture import draw_samples, write_samples
from slam.evaluation.report import markdown, print_table


def record(model, sampler, steps, guidance, fid, faithfulness=0.5, protocol_hash="0123456789abcdef"):
    metrics = {"fid": fid, "clip_score": 61.25, "faithfulness": faithfulness, "captions_right": faithfulness}
    spread = {"fid_interval": [fid - 0.25, fid + 0.25], "fid_infinity": fid - 0.4, "clip_score_interval": None}
    row = {"model": model, "sampler": sampler, "steps": steps, "guidance": guidance, "protocol_hash": protocol_hash}
    what = {"n": 64, "seed": 2, "protocol": "tiny", "protocol_version": 1}
    return row | metrics | spread | {"seconds_per_image": 0.01234} | what


RECORDS = [
    record("vae", "reconstruction", 0, 1.0, 0.5, 0.98),
    record("teacher", "ddim", 50, 3.0, 3.456, 0.91),
    record("teacher", "dpm++", 1, 3.0, 35.9, None),
    record("student", "lcm", 1, 1.0, 9.0, 0.5),
]
WORST = [{"index": 3, "caption": "a red ring", "clip_score": -4.2}]

MARKDOWN = """\
| model | sampler | steps | guidance | FID | CLIP score | faithful | captions right | ms each |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| vae | autoencoder | - | - | 0.50 ± 0.25 | 61.2 | 98.0% | 98.0% | 12.3 |
| teacher | DDIM | 50 | 3 | 3.46 ± 0.25 | 61.2 | 91.0% | 91.0% | 12.3 |
| teacher | DPM-Solver++ | 1 | 3 | 35.90 ± 0.25 | 61.2 | - | - | 12.3 |
| student | LCM | 1 | 1 | 9.00 ± 0.25 | 61.2 | 50.0% | 50.0% | 12.3 |

64 pictures a row, seed 2, protocol tiny v1 (01234567).

±: half of a 95% interval, from resampling the pictures of a row (seeds of training not included).

FID of fewer than 10,000 pictures is too high: here by about 0.4 (median over the rows, from FID-infinity); compare \
it only at the same number.

Worst prompts by CLIP score, student, 1 step:

* -4.2: a red ring
"""


def test_the_markdown_table():
    assert markdown([*RECORDS[:-1], RECORDS[-1] | {"worst": WORST}]) == MARKDOWN


def test_numbers_of_two_protocols_do_not_stand_side_by_side_unsaid():
    other = record("student", "lcm", 2, 1.0, 3.0, protocol_hash="fedcba9876543210")
    text = markdown([*RECORDS, other])
    assert "NOT COMPARABLE" in text
    assert "| protocol |" in text and "tiny v1 (01234567) |" in text and "tiny v1 (fedcba98) |" in text
    terminal = Console(file=io.StringIO(), width=80)
    print_table([*RECORDS, other], terminal)
    assert "NOT COMPARABLE" in terminal.file.getvalue()


def test_a_terminal_of_80_columns_shows_the_same_cells():
    terminal = Console(file=io.StringIO(), width=80)
    print_table(RECORDS, terminal)
    shown = [line.split() for line in terminal.file.getvalue().splitlines()]
    for line in MARKDOWN.splitlines()[2:6]:
        assert [cell.split("±")[0].strip() for cell in line.strip("|").split("|")] in shown


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
