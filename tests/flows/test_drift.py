"""When a model counts as changed: a pure rule over two lists of records."""

import math

import pytest

from flows.drift import drifts
from slam.errors import SlamError


def record(steps: int = 1, hash: str = "0" * 64, **metrics) -> dict:
    return {"model": "student", "steps": steps, "protocol": "tiny", "protocol_hash": hash, **metrics}


THEN = record(fid=10.0, fid_interval=[9.0, 12.0], clip_score=70.0, clip_score_interval=[69.0, 71.0])


def test_the_same_numbers_have_not_drifted():
    assert drifts([THEN], [THEN]) == []


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ({"fid": 12.0, "clip_score": 69.0}, []),  # the ends belong to the interval
        ({"fid": 12.1, "clip_score": 70.0}, [("fid", True)]),
        ({"fid": 8.9, "clip_score": 70.0}, [("fid", False)]),
        ({"fid": 10.0, "clip_score": 68.9}, [("clip_score", True)]),
        ({"fid": 10.0, "clip_score": 71.1}, [("clip_score", False)]),
        ({"fid": math.nan, "clip_score": None}, [("fid", True), ("clip_score", True)]),
    ],
)
def test_what_leaves_its_interval_is_drift_and_worse_in_one_direction(now, found):
    assert [(item.metric, item.worse) for item in drifts([THEN], [record(**now)])] == found


def test_each_number_of_steps_is_judged_and_named():
    then = [record(steps, fid=10.0, fid_interval=[9.0, 12.0]) for steps in (1, 4)]
    (found,) = drifts(then, [record(1, fid=10.0), record(4, fid=13.0)])
    assert str(found) == "fid at 4 steps: 13, worse than 10 [9, 12]"


def test_a_value_outside_its_own_interval_is_no_drift():
    odd = record(fid=8.5, fid_interval=[9.0, 12.0])  # the FID of resampled pictures lies above
    assert drifts([odd], [odd]) == []


def test_numbers_of_two_protocols_are_not_compared():
    with pytest.raises(
        SlamError, match=r"measured under tiny \(11111111\), registered under tiny \(00000000\): not com"
    ):
        drifts([THEN], [record(hash="1" * 64, fid=99.0)])


@pytest.mark.parametrize("then", [record(fid=10.0), record(2, fid=10.0, fid_interval=[9.0, 12.0])])
def test_nothing_to_compare_is_no_agreement(then):
    with pytest.raises(SlamError, match="without intervals at these numbers of steps"):
        drifts([then], [record(fid=10.0)])
