import numpy as np
import pytest
import torch
from cleanfid.fid import get_folder_features
from cleanfid.resize import make_resizer
from PIL import Image

from slam.data import shapes
from slam.errors import SlamError
from slam.evaluation.features import INCEPTION, load_features, rows, square


def test_equal_clean_fids_own_features_of_a_folder(random_judge, tmp_path):
    """Without a file in between. Pictures larger than the judge's input, so that clean-fid's resize has work."""
    network = load_features(random_judge)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    theirs = get_folder_features(
        str(tmp_path),
        network.network,
        num_workers=0,
        device=torch.device("cpu"),
        custom_fn_resize=make_resizer("PIL", False, "bicubic", (32, 32)),
        custom_image_tranform=lambda picture: square(picture, network.resolution),
        verbose=False,
    )
    np.testing.assert_allclose(network(pictures), theirs, rtol=1e-5, atol=1e-6)


def test_pictures_of_the_judges_size_reach_it_unchanged(random_judge):
    network = load_features(random_judge)
    pictures = torch.from_numpy(shapes.draw(4, 0).images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.network(pictures)
    np.testing.assert_allclose(network(rows(pictures)), expected, rtol=1e-5, atol=1e-6)


def test_a_wide_picture_is_cropped_at_its_centre():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (square(wide, 20) == 200).all()
    assert square(wide.transpose(1, 0, 2), 10).shape == (10, 10, 3)


def test_a_wrong_inception_file_is_refused(tmp_path):
    (tmp_path / INCEPTION).write_bytes(b"not the weights")
    with pytest.raises(SlamError, match="sha256 f58cb9b6ec32.*, found inception-2015-12-05.pt with"):
        load_features(tmp_path / INCEPTION)


def test_a_missing_network_says_what_to_do(tmp_path):
    with pytest.raises(SlamError, match="run `slam teacher`"):
        load_features(tmp_path / "judge")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlamError, match="config.json does not exist"):
        load_features(tmp_path / "empty")
