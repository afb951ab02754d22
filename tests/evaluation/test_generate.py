from dataclasses import replace

import pytest
import torch

from slam.data import shapes
from slam.errors import SlamError
from slam.evaluation.generate import generate
from slam.evaluation.samplers import SAMPLERS
from slam.models.diffusion import load

CAPTIONS = shapes.draw(7, 3).captions


@pytest.fixture(scope="module")
def model(random_teacher):
    return load(random_teacher)


def pictures(model, batch, sampler="lcm", captions=CAPTIONS, **kwargs):
    drawn = generate(model, captions, sampler=sampler, steps=2, seed=5, batch=batch, label="test", **kwargs)
    return torch.cat([part.pictures for part in drawn])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_for_any_batch_size(model, sampler):
    one, three, all_at_once = (pictures(model, batch, sampler, guidance=2.0).int() for batch in (1, 3, 7))
    assert one.shape == (7, 3, 32, 32)
    for other in (three, all_at_once):
        assert (one - other).abs().max() <= 1
        assert (one != other).float().mean() < 1e-3  # rounding of a sum in another order


def test_pictures_of_one_caption_differ_by_their_noise(model):
    first, second = pictures(model, 2, captions=["a red circle"] * 2)
    assert not torch.equal(first, second)


def test_the_rows_and_the_seconds_are_told(model):
    drawn = list(generate(model, CAPTIONS, sampler="ddim", steps=1, seed=0, batch=3, label="test"))
    assert [(part.rows.start, part.rows.stop) for part in drawn] == [(0, 3), (3, 6), (6, 7)]
    assert all(part.seconds > 0 and part.pictures.dtype == torch.uint8 for part in drawn)


@pytest.mark.parametrize("decode", [lambda z: torch.zeros(len(z), 3, 32, 32, dtype=torch.uint8)])
def test_blank_pictures_are_refused(model, decode):
    class Black(type(model)):
        pass

    black = Black(**vars(model))
    object.__setattr__(black, "decode", decode)
    with pytest.raises(SlamError, match="test: expected pictures, found picture 0 blank"):
        pictures(black, 4)


def test_latents_that_are_not_finite_are_refused(model, random_teacher):
    broken = load(random_teacher)
    next(broken.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(SlamError, match="picture 0 blank or not finite"):
        pictures(replace(model, unet=broken.unet), 4)
