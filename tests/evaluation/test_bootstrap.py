import numpy as np
import pytest

from slam.evaluation.bootstrap import WIDTH, interval, weights
from slam.evaluation.frechet import DistanceTo, frechet_distance, moments, without_bias
from slam.evaluation.kid import Kid
from slam.evaluation.metrics import Target, distances, mean, scores
from slam.evaluation.observe import Observations


def test_the_spread_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(values.mean(), mean(values, weights(400, 4000)))
    assert (high - low) / 2 == pytest.approx(WIDTH * values.std() / 400**0.5, rel=0.05)
    assert (high + low) / 2 == pytest.approx(values.mean())


def test_pictures_of_one_prompt_are_drawn_together():
    """Three equal pictures a prompt tell as much as one: the spread is that of the prompts."""
    values = np.random.default_rng(0).normal(size=200).repeat(3)
    together, apart = (mean(values, weights(600, 2000, each)).std() for each in (3, 1))
    assert together == pytest.approx(values.std() / 200**0.5, rel=0.06)
    assert apart == pytest.approx(values.std() / 600**0.5, rel=0.06)


def test_an_interval_ends_where_the_metric_ends():
    assert interval(0.99, np.array([0.9, 1.0]), 0, 1)[1] == 1


@pytest.fixture(scope="module")
def world():
    """Features with a tail, as a judge's have: 60 sets of 300, and a reference of 20,000."""
    rng = np.random.default_rng(0)

    def draw(n):
        return rng.normal(size=(n, 24)) * np.exp(0.3 * rng.normal(size=(n, 1))) + np.arange(24) / 40

    return draw(20000), [draw(300) for _ in range(60)]


def test_the_spread_of_fid_and_kid_is_that_over_sets_drawn_anew(world):
    """The bootstrap sees one set; 60 of them show the truth. The distance is that of a student: well above its bias."""
    reference, sets = 1.3 * world[0] + 0.3, world[1]
    to, few = DistanceTo(moments(reference)), weights(300, 100)
    truth = np.std([to(moments(own)) for own in sets], ddof=1)
    assert np.mean([distances(own, to, few).std() for own in sets[:8]]) == pytest.approx(truth, rel=0.3)
    truth = np.std([Kid(own, reference[:1000])()[0] for own in sets], ddof=1)
    assert np.mean([Kid(own, reference[:1000])(few).std() for own in sets[:8]]) == pytest.approx(truth, rel=0.3)


def test_the_spread_of_fid_is_wide_rather_than_narrow_where_nothing_differs(world):
    reference, sets = world
    to = DistanceTo(moments(reference))
    truth = np.std([to(moments(own)) for own in sets], ddof=1)
    assert 1 < np.mean([distances(own, to, weights(300, 100)).std() for own in sets[:8]]) / truth < 3


def test_fid_infinity_takes_away_most_of_the_bias_of_a_small_set(world):
    """Of sets of the reference's own distribution, whose distance is 0."""
    reference, sets = world
    to = DistanceTo(moments(reference))
    found = [to(moments(own)) for own in sets[:20]]
    corrected = [without_bias(distance, own, to) for distance, own in zip(found, sets, strict=False)]
    assert np.mean(found) > 0.9
    assert abs(np.mean(corrected)) < 0.15 * np.mean(found)
    assert without_bias(1.0, sets[0][:48], to) is None


def test_the_quick_distance_is_the_exact_one_but_for_rounding(world):
    reference, sets = world
    to = DistanceTo(moments(reference))
    for own in (sets[0], sets[0][:12]):
        assert to(moments(own)) == pytest.approx(frechet_distance(moments(own), moments(reference)), abs=1e-5)


def test_weights_are_copies():
    x = np.random.default_rng(0).normal(size=(9, 4))
    (row,) = weights(9, 1)
    for ours, copied in zip(moments(x, row), moments(x.repeat(row, 0)), strict=True):
        np.testing.assert_allclose(ours, copied, atol=1e-14)


def test_every_metric_lies_in_its_interval():
    rng = np.random.default_rng(0)
    features, attributes = rng.normal(size=(40, 6)), np.stack([rng.integers(0, 3, 40), np.full(40, 2)], 1)
    blank = np.zeros((40, 32), np.uint8)
    seen = Observations(features, rng.uniform(size=40), attributes, blank, rng.uniform(0.1, 0.2, 8), blank)
    found = scores(seen, Target(rng.normal(size=(60, 6))), judged=True)
    names = {"fid", "kid", "precision", "recall", "clip_score", "faithfulness", "captions_right", "seconds_per_image"}
    assert names == {key.removesuffix("_interval") for key in found if key.endswith("_interval")}
    for name in names:
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high, name
    unjudged = scores(seen, Target(rng.normal(size=(60, 6))), judged=False)
    assert unjudged["faithfulness"] is unjudged["faithfulness_interval"] is None
