import numpy as np
import pytest
import torch
from cleanfid.fid import compute_fid
from cleanfid.fid import frechet_distance as clean_fid_distance
from cleanfid.resize import make_resizer
from PIL import Image

from slam.data import shapes
from slam.evaluation.features import load_features, square
from slam.evaluation.frechet import Moments, frechet_distance, moments


def sets(n, dims, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dims, dims)) / dims**0.5
    return rng.normal(size=(n, dims)), 0.3 + rng.normal(size=(n, dims)) @ mixing


@pytest.mark.parametrize(("n", "dims", "error"), [(500, 32, 1e-9), (40, 64, 1e-5)], ids=["full rank", "fewer samples"])
def test_equals_clean_fid(n, dims, error):
    a, b = map(moments, sets(n, dims))
    assert frechet_distance(a, b) == pytest.approx(clean_fid_distance(*a, *b), abs=error)


@pytest.mark.parametrize("n", [160, 40], ids=["more pictures than features", "fewer"])
def test_equals_clean_fids_own_of_two_folders(n, tmp_path):
    """From PNG files to the number by clean-fid's own function, with the tiny teacher's judge (128 features) in the
    place of Inception. The pictures are larger than the judge takes, so that the resize has work."""
    network, sets = load_features("teachers/tiny/judge"), {}
    for name, seed, fade in (("ours", 1, 0.7), ("theirs", 2, 1.0)):
        small = (shapes.draw(n, seed).images * fade).astype(np.uint8)
        sets[name] = [np.asarray(Image.fromarray(picture).resize((48, 48))) for picture in small]
        (tmp_path / name).mkdir()
        for i, picture in enumerate(sets[name]):
            Image.fromarray(picture).save(tmp_path / name / f"{i:04d}.png")
    expected = compute_fid(
        str(tmp_path / "ours"),
        str(tmp_path / "theirs"),
        mode="clean",
        custom_feat_extractor=network.network,
        custom_fn_resize=make_resizer("PIL", False, "bicubic", (network.side, network.side)),
        custom_image_tranform=lambda picture: square(picture, network.resolution),
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    ours = frechet_distance(moments(network(sets["ours"])), moments(network(sets["theirs"])))
    assert expected > 1
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "dims"), [(500, 32), (40, 64), (20, 128)])
def test_equals_the_singular_values_of_the_centred_sets(n, dims):
    """The trace of (S_a S_b)^(1/2) is the nuclear norm of X_a X_b^T, with no covariance in between."""
    x, y = sets(n, dims)
    centred = [(z - z.mean(0)) / (n - 1) ** 0.5 for z in (x, y)]
    trace = sum((z**2).sum() for z in centred) - 2 * np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + trace
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, abs=1e-10)


def test_closed_form_of_commuting_gaussians():
    s, t = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.0])
    a, b = Moments(np.zeros(3), np.diag(s)), Moments(np.array([3.0, 0, -4]), np.diag(t))
    assert frechet_distance(a, b) == pytest.approx(25 + ((s**0.5 - t**0.5) ** 2).sum(), abs=1e-12)


def test_is_zero_for_the_same_set_and_symmetric():
    a, b = map(moments, sets(50, 64))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-12)


def test_float32_features_are_summed_in_float64():
    features = (1e4 + np.random.default_rng(0).normal(size=(2000, 4))).astype(np.float32)
    assert moments(features).covariance == pytest.approx(np.cov(features.astype(np.float64), rowvar=False))
