from pathlib import Path

import pytest
import yaml

from slam.config import load, parse
from slam.errors import SlamError


@pytest.fixture
def tiny():
    return yaml.safe_load(Path("params.yaml").read_text())["profiles"]["tiny"]


@pytest.mark.parametrize("profile", ["tiny", "sd15", "sd21"])
def test_every_shipped_profile_is_valid(profile):
    assert load(profile=profile).distill.k % load(profile=profile).distill.k_phi == 0


def test_the_papers_recipes_are_the_papers():
    """Sec 5.1 and the supplement: k, guidance, distance, learning rate, batch, clip, EMA."""
    sd15, sd21 = load(profile="sd15"), load(profile="sd21")
    assert (sd15.distill.k, sd15.distill.k_phi, sd15.distill.w, sd15.distill.distance) == (100, 20, 3.0, "huber")
    assert (sd21.distill.k, sd21.distill.w, sd21.distill.distance) == (20, 8.0, "l2")
    assert (sd15.train.steps, sd21.train.steps) == (6000, 80000)
    for each in (sd15, sd21):
        assert (each.train.batch, each.train.lr, each.train.clip, each.distill.mu) == (1024, 8e-6, 10.0, 0.95)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "stepz", 3, r"test\.train\.stepz is not a key: did you mean steps\?"),
        ("distill", "k", 110, r"distill\.k = 110 must be a multiple of distill\.k_phi = 20"),
        ("distill", "w", 0.5, r"test\.distill\.w = 0\.5: .*greater than or equal to 1"),
        (
            "distill",
            "method",
            "sdxl",
            r"test\.distill\.method = 'sdxl': Input should be 'slam', 'dl', 'lcm' or 'lcm_w'",
        ),
        ("distill", "method", "lcm_w", r"lcm_w needs w_min <= w <= w_max, .*found w_min = None, w = 5\.0"),
        ("distill", "gamma_at_1", 1.0, r"test\.distill\.gamma_at_1 = 1\.0: .*less than 1"),
        ("train", "lora", {"rank": 0, "alpha": 4}, r"test\.train\.lora\.rank = 0"),
        ("distill", "w_max", 9.0, r"distill\.w_min, distill\.w_max are lcm_w's; slam is trained at distill\.w alone"),
        ("distill", "method", "dl", r"distill\.method = dl needs distill\.sigma = exact"),
        ("train", "processes", 3, r"train\.batch = 32 must be a multiple of train\.processes = 3"),
        ("train", "grace", 0, r"test\.train\.grace = 0: .*greater than 0"),
        ("train", "micro_batch", 5, r"train\.micro_batch = 5 must divide"),
        ("filter", "aesthetics", 6.0, r"test\.filter\.aesthetics is not a key"),
        (
            "filter",
            "limits",
            {"aesthetic": {"minn": 6, "missing": "keep"}},
            r"filter\.limits\.aesthetic\.minn is not a key: did you mean min\?",
        ),
        (
            "filter",
            "limits",
            {"asthetic": {"min": 6}},
            r"filter\.limits\.asthetic is not a key: did you mean aesthetic\?",
        ),
        ("filter", "limits", {"aspect": {"max": 3}}, r"filter\.limits\.aspect\.missing is missing"),
        ("filter", "limits", {"aspect": {"missing": "keep"}}, r"filter\.limits\.aspect: a limit needs min or max"),
        (
            "filter",
            "limits",
            {"nsfw": {"min": 1, "max": 0.5, "missing": "keep"}},
            r"filter\.limits\.nsfw: min = 1\.0 is more than max = 0\.5",
        ),
        (
            "filter",
            "limits",
            {"nsfw": {"max": 1, "missing": "skip"}},
            r"nsfw\.missing = 'skip': .*'keep', 'drop' or 'stop'",
        ),
        ("source", "kind", "img2dataset", r"needs path"),
        ("source", "path", "/data", r"kind 'shapes' has no path"),
    ],
)
def test_a_wrong_key_or_value_is_named(section, key, value, message, tiny):
    tiny[section][key] = value
    with pytest.raises(SlamError, match=message):
        parse(tiny, "test")


def test_a_range_of_w_the_wrong_way_round_is_refused(tiny):
    tiny["distill"] |= {"method": "lcm_w", "w_min": 9.0, "w_max": 3.0}
    with pytest.raises(SlamError, match=r"needs w_min <= w <= w_max, .*w_min = 9\.0, w = 5\.0, w_max = 3"):
        parse(tiny, "test")


def test_adapters_cannot_hold_an_embedding(tiny):
    tiny["train"]["lora"] = {"rank": 4, "alpha": 4}
    assert parse(tiny, "test").train.lora.rank == 4
    tiny["distill"]["conditioning"] = "gamma"
    with pytest.raises(SlamError, match=r"train\.lora: adapters alone cannot hold .* conditioning = gamma"):
        parse(tiny, "test")


def test_a_missing_key_is_named(tiny):
    del tiny["filter"]["survivors"]
    with pytest.raises(SlamError, match=r"test\.filter\.survivors is missing"):
        parse(tiny, "test")


def test_every_fault_is_told_at_once(tiny):
    tiny["train"]["stepz"], tiny["select"]["samples"] = 1, 0
    with pytest.raises(SlamError) as error:
        parse(tiny, "test")
    assert len(str(error.value).splitlines()) == 2


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(SlamError, match="profile = 'big' is not one of tiny, sd15, sd21"):
        load(profile="big")


def test_a_file_that_does_not_exist_or_is_no_yaml_is_refused(tmp_path):
    with pytest.raises(SlamError, match="run slam in the folder that holds params.yaml"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(SlamError, match="expected YAML"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: 1")
    with pytest.raises(SlamError, match="`profile` and `profiles`"):
        load(tmp_path / "params.yaml")


def test_a_profile_cannot_be_changed_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load(profile="tiny").train.steps = 3
