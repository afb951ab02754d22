import numpy as np
import pytest

from slam.evaluation import neighbours
from slam.evaluation.neighbours import inside, radii


@pytest.mark.parametrize("rows", [5, 1024])
def test_equal_the_distances_of_every_pair_however_they_are_cut(rows, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), 0.7 * rng.normal(size=(23, 6))
    apart = ((y[:, None] - y[None]) ** 2).sum(-1)
    third = np.sort(apart, axis=1)[:, 3]  # the first is the sample itself
    np.testing.assert_allclose(radii(y), third)
    across = ((x.astype(np.float64)[:, None] - y[None]) ** 2).sum(-1)
    expected = (across <= third).any(1)
    assert 0 < expected.sum() < 40
    np.testing.assert_array_equal(inside(x, y, radii(y)), expected)


def test_closed_form_on_a_line():
    """Samples at 0, 1, 2, ...: the third neighbour is 2 away inside and 3 away at the end (1, 2, 3)."""
    line = np.arange(8.0)[:, None]
    np.testing.assert_allclose(radii(line) ** 0.5, [3, 2, 2, 2, 2, 2, 2, 3])
    asked = np.array([[-3.0], [-3.1], [3.5], [10.0], [10.1]])
    assert inside(asked, line, radii(line)).tolist() == [True, False, True, True, False]


def test_a_lost_mode_costs_recall_and_a_stray_one_precision():
    """Half of the real samples are of a mode that is never drawn; a quarter of the drawn are near no real one. Some
    samples at the edge of a mode lie outside all balls."""
    rng = np.random.default_rng(2)
    one, two, stray = (rng.normal(size=(n, 4)) + shift for n, shift in ((600, 0), (600, 50), (200, -50)))
    real, fake = np.concatenate([one[:300], two[:300]]), np.concatenate([one[300:], stray[:100]])
    precision, recall = inside(fake, real, radii(real)).mean(), inside(real, fake, radii(fake)).mean()
    assert precision == pytest.approx(0.75, abs=0.07)
    assert recall == pytest.approx(0.5, abs=0.07)
