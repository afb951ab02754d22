"""What a run sets in params.yaml: exactly that, or nothing."""

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.overrides import _flow, settle
from slam import config
from slam.errors import SlamError
from tests.flows.conftest import REPOSITORY


@pytest.fixture
def params(tmp_path) -> Path:
    return Path(shutil.copy(REPOSITORY / "params.yaml", tmp_path))


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_value_is_replaced_in_its_line_and_nothing_else_changes(params):
    before = lines_of(params)
    name, said = settle(params, None, {"train.steps": 100, "train.lr": 1e-5, "source.pictures": 64})
    changed = [(old, new) for old, new in zip(before, lines_of(params), strict=True) if old != new]
    assert [new.strip() for _, new in changed] == [
        "source: {kind: shapes, pictures: 64, evaluation: 3072, degraded: 0.2, shard: 1000, seed: 1}",
        "steps: 100",
        "lr: 1.0e-05",
    ]
    assert name == "tiny"
    removed, added = ([line[1:] for line in said.splitlines() if line.startswith(sign + "  ")] for sign in "-+")
    assert (removed, added) == ([old for old, _ in changed], [new for _, new in changed])
    profile = config.load(params)
    assert (profile.train.steps, profile.train.lr, profile.source.pictures) == (100, 1e-5, 64)


def test_a_key_that_the_file_leaves_out_is_added_to_its_section(params):
    settle(params, None, {"train.lora": {"rank": 4, "alpha": 8}, "encode.posterior": "mean", "score": None})
    profile = config.load(params)
    assert (profile.train.lora.rank, profile.encode.posterior, profile.score) == (4, "mean", None)
    assert "encode: {resolution: 32, batch: 64, shard: 2048, precision: fp32, posterior: mean}" in params.read_text()


def test_a_null_becomes_a_section(params):
    settle(params, None, {"score.clip": "a/clip", "score.head": "head.safetensors"})
    assert config.load(params).score.clip == "a/clip"


def test_another_profile_is_chosen_and_its_comment_stays(params):
    name, said = settle(params, "sd15", {"train.steps": 7})
    assert name == "sd15"
    assert "-profile: tiny\n+profile: sd15" in said
    assert config.load(params).train.steps == 7
    assert config.load(params, "sd21").train.steps == 80000  # which has its own


def test_the_same_values_again_change_nothing(params):
    settle(params, None, {"train.steps": 100})
    before = params.read_bytes()
    assert settle(params, "tiny", {"train.steps": 100}) == ("tiny", "")
    assert params.read_bytes() == before


@pytest.mark.parametrize(
    ("profile", "overrides", "says"),
    [
        ("sd16", {}, "profile = 'sd16' is not one of tiny, sd15, sd21"),
        (None, {"train.stepz": 1}, "profiles.tiny.train.stepz is not a key: did you mean steps?"),
        (None, {"train.steps": -1}, "profiles.tiny.train.steps = -1"),
        (None, {"train.batch": 33, "train.processes": 2}, "train.batch = 33 must be a multiple"),
        (None, {"train": {"steps": 1}}, "profiles.tiny.train is a section of params.yaml: set its keys"),
        (None, {"teacher.unet": "x"}, "profiles.tiny.teacher = "),
        ("sd15", {"train.lr": 1e-5}, "train.lr cannot be set for sd15 alone: another profile shares it"),
        ("sd21", {"filter.survivors": 0.1}, "cannot be set for sd21 alone"),
    ],
)
def test_a_mistake_is_told_and_the_file_is_as_it_was(params, profile, overrides, says):
    before = params.read_bytes()
    with pytest.raises(SlamError) as error:
        settle(params, profile, overrides)
    assert says in str(error.value)
    assert params.read_bytes() == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_whatever_json_can_say_is_read_back_as_it_was(value):
    assert yaml.safe_load(f"a: {_flow(value)}  # a comment") == {"a": value}
    assert yaml.safe_load(f"a: {{b: 1, c: {_flow(value)}}}") == {"a": {"b": 1, "c": value}}
