import numpy as np
import pytest

from slam.data import aesthetics, shapes
from slam.data.sources.shapes import DEGRADATIONS, degrade

PICTURES = shapes.draw(400, 77).images


def test_clean_pictures_score_six_or_more():
    assert (aesthetics.score(PICTURES) >= 6).mean() > 0.98


@pytest.mark.parametrize("spoil", DEGRADATIONS)
def test_degraded_pictures_score_less_than_six(spoil):
    rng = np.random.default_rng(0)
    assert (aesthetics.score(np.stack([spoil(image, rng) for image in PICTURES])) < 6).mean() > 0.9


def test_noise_is_measured_in_its_own_standard_deviation():
    noisy = 0.5 + np.random.default_rng(0).normal(0, 0.05, (1, 20, 64, 64))  # one channel: no maximum over three
    # the median of |N(0, s)| is 0.6745 s, and the mask's norm is 6
    assert np.allclose(aesthetics.noise(noisy), 0.6745 * 0.05, rtol=0.1)


def test_contrast_of_two_halves_is_their_difference_and_a_slope_has_no_noise():
    halves = np.zeros((3, 1, 32, 32))
    halves[1, :, :, 16:] = 0.4
    assert np.allclose(aesthetics.contrast(halves), 0.4)
    slope = np.broadcast_to(np.linspace(0, 1, 32), (3, 1, 32, 32))
    assert np.allclose(aesthetics.noise(slope), 0, atol=1e-12)


def test_scores_stay_in_their_range():
    flat = np.full((1, 32, 32, 3), 128, np.uint8)
    static = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert aesthetics.score(np.concatenate([flat, static])).tolist() == [1, 1]


def test_degrade_spoils_the_share_that_was_asked_and_copies():
    before = PICTURES.copy()
    spoilt = degrade(PICTURES, 0.3, np.random.default_rng(1))
    changed = (spoilt != PICTURES).any(axis=(1, 2, 3)).mean()
    assert 0.2 < changed < 0.4 and np.array_equal(PICTURES, before)
