"""The gate's rules, one by one, on records made by hand."""

from pathlib import Path

import pytest

from slam.errors import SlamError
from slam.registry.gate import judge, load_gate
from tests.registry.records import good_records, record

GATE = load_gate(Path(__file__).parents[2] / "mlflow/promotion.yaml")


def failures(records, champion=None) -> list[str]:
    return [check.rule for check in judge(GATE, records, champion) if not check.passed]


def with_student(**changes) -> list[dict]:
    return [row | changes if row["model"] == "student" else row for row in good_records()]


def test_a_student_that_beats_every_training_free_sampler_passes():
    assert failures(good_records(student_fid=20.0)) == []  # exactly 0.5 x 40 at one step


def test_fid_is_held_against_the_best_training_free_sampler_not_the_worst():
    assert failures(good_records(student_fid=21.0)) == ["fid at 1 step against dpm++"]  # 60 x 0.5 would let it pass
    assert failures(good_records(student_fid=25.0)) == ["fid at 1 step against dpm++", "fid at 2 steps against dpm++"]


def test_clip_score_and_faithfulness_have_floors_relative_to_the_guided_teacher():
    assert failures(with_student(clip_score=20.0)) == ["clip_score at 1 step", "clip_score at 4 steps"]
    assert failures(with_student(faithfulness=0.4)) == ["faithfulness at 4 steps"]


def test_faithfulness_does_not_apply_without_a_judge_but_does_when_only_the_student_lacks_it():
    assert failures([row | {"faithfulness": None} for row in good_records()]) == []
    assert failures(with_student(faithfulness=None)) == ["faithfulness at 4 steps"]


def test_a_number_that_is_not_finite_fails():
    assert "finite" in failures(with_student(fid=float("nan")))


def test_a_missing_step_count_fails():
    assert "fid at 2 steps against dpm++" in failures(
        [row for row in good_records() if row["steps"] != 2 or row["model"] == "teacher"]
    )


def test_worse_than_the_champion_by_more_than_the_tolerance_fails():
    assert failures(good_records(11.4), champion=good_records(10.0)) == []
    assert failures(good_records(11.6), champion=good_records(10.0)) == [
        f"fid at {steps} against the champion" for steps in ("1 step", "2 steps", "4 steps")
    ]


def test_with_an_interval_the_champion_is_beaten_by_no_more_than_its_upper_end():
    champion = [row | {"fid_interval": [9.5, 10.5]} for row in good_records(10.0)]
    assert failures(good_records(10.5), champion) == []
    (first, *_) = [check for check in judge(GATE, good_records(10.6), champion) if not check.passed]
    assert first.says == "fid at 1 step 10.6, at most 10.5, the upper end of the champion's 10"


def test_a_student_that_is_too_slow_fails():
    assert failures(with_student(seconds_per_image=0.02)) == ["seconds_per_image at 1 step against the teacher"]
    assert failures(with_student(seconds_per_image=None)) == [
        f"seconds_per_image at {steps} against the teacher" for steps in ("1 step", "4 steps")
    ]


@pytest.mark.parametrize("key", ["fid", "clip_score", "seconds_per_image", "protocol_hash"])
def test_a_metric_that_is_not_there_fails_whichever_it_is(key):
    assert failures(good_records()) == []
    missing = [{name: value for name, value in row.items() if name != key} for row in good_records()]
    assert failures(missing)
    assert failures([row if row["model"] == "teacher" else row | {key: None} for row in good_records()])


@pytest.mark.parametrize("key", ["fid", "clip_score", "faithfulness", "seconds_per_image", "fid_interval"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_named_wherever_it_is(key, value):
    wrong = [value, value] if key == "fid_interval" else value
    (check,) = [check for check in judge(GATE, with_student(**{key: wrong}), None) if check.rule == "finite"]
    assert not check.passed
    assert f"student lcm 1 steps: {key} = {value}" in check.says


def test_nothing_measured_fails_every_way():
    assert {"one protocol", "fid at 1 step against a training-free sampler"} <= set(failures([]))


def test_a_champion_measured_under_another_protocol_is_never_compared():
    other = [row | {"protocol_hash": "1" * 64} for row in good_records(1000.0)]
    (check,) = [check for check in judge(GATE, good_records(), other) if not check.passed]
    assert check.rule == "one protocol"
    assert "test-v1 (00000000), test-v1 (11111111)" in check.says
    assert "alias champion" in check.says


def test_a_misspelt_limit_is_refused_by_name(tmp_path):
    text = (Path(__file__).parents[2] / "mlflow/promotion.yaml").read_text()
    (tmp_path / "promotion.yaml").write_text(text.replace("fid_of_champion", "fid_of_champoin"))
    with pytest.raises(SlamError, match="fid_of_champoin is not a key: did you mean fid_of_champion"):
        load_gate(tmp_path / "promotion.yaml")


def test_the_teachers_few_step_rows_are_not_its_reference():
    records = [*good_records(), record("teacher", "ddim", 20, 5.0, clip_score=1000.0)]
    assert failures(records) == []
