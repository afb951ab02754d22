import numpy as np
import pytest
import torch

from slam.data import shapes
from slam.errors import SlamError
from slam.models.judge import Judge
from slam.teacher.judge import accuracy, degrade, train_judge


def images(pictures):
    return torch.from_numpy(pictures.images).permute(0, 3, 1, 2).contiguous()


def test_has_at_most_half_a_million_parameters():
    assert sum(parameter.numel() for parameter in Judge().parameters()) <= 500_000


def test_loads_as_it_was_saved(random_judge, tmp_path):
    judge, pixels = Judge.load(random_judge), images(shapes.draw(4, 0))
    judge.save(tmp_path / "copy")
    copy = Judge.load(tmp_path / "copy")
    assert copy.attributes == shapes.ATTRIBUTES
    assert torch.equal(judge.features(pixels), copy.features(pixels))
    assert copy.read(pixels) == judge.read(pixels)
    assert not copy.training


def test_a_folder_that_is_not_whole_is_refused(random_judge, tmp_path):
    Judge.load(random_judge).save(tmp_path / "judge")
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(SlamError, match="expected a judge"):
        Judge.load(tmp_path / "judge")


def test_degraded_pictures_stay_in_range_and_near_the_original():
    pixels = images(shapes.draw(64, 1)).float()
    soft = degrade(pixels, torch.Generator().manual_seed(0))
    assert soft.min() >= 0
    assert soft.max() <= 255
    assert 1 < (soft - pixels).abs().mean() < 20


def test_calibrated_features_have_unit_variance_and_the_readings_stay(random_judge):
    judge, pixels = Judge.load(random_judge), images(shapes.draw(256, 2))
    before = judge.read(pixels)
    judge.calibrate(pixels)
    assert judge.features(pixels).var(0).mean().item() == pytest.approx(1, abs=1e-3)
    assert judge.read(pixels) == before


@pytest.mark.slow
def test_learns_to_read_colours_places_and_sizes():
    """20 seconds of the two minutes that it is given: already far above chance (1/8, 1/8, 1/2, 1/5)."""
    world, fresh = shapes.draw(4000, 1), shapes.draw(500, 2)
    judge = train_judge(images(world), world.labels, steps=400, batch=64, lr=2e-3, seed=0)
    found = accuracy(judge, images(fresh), fresh.labels)
    assert min(found[name] for name in ("colour", "background", "size", "position")) > 0.9
    seen = judge.read(images(fresh))
    own = np.mean(
        [row["colour"] == shapes.ATTRIBUTES["colour"][label[1]] for row, label in zip(seen, fresh.labels, strict=True)]
    )
    assert own == pytest.approx(found["colour"])
