"""The same pictures, to the bit, however they are drawn."""

import json

import pytest

from slam.evaluation.evaluate import evaluate_model

# What depends on the clock, and what says how the pictures were drawn.
FREE = ("seconds_per_image", "seconds_per_image_interval", "timing")


@pytest.fixture
def measured(evaluation_set, tmp_path, config):
    """Of the embedded teacher: a random one is too small for the size of a batch to show in its pictures."""

    def records(name, **changed):
        few = {"steps": (2,), "samplers": ("dpm++",), "teacher_steps": 2}
        asked = config.model_copy(update={**few, **changed})
        found = evaluate_model(asked, "teachers/tiny", evaluation_set, tmp_path / name)
        assert found == json.loads((tmp_path / name / "metrics.json").read_text())
        return [{key: value for key, value in record.items() if key not in FREE} for record in found]

    return records


@pytest.mark.slow
def test_batch_1_and_7_and_one_and_two_processes_give_the_same_pictures_and_numbers(measured):
    whole = measured("whole", batch=16)
    assert measured("ones", batch=1) == whole
    assert measured("sevens", batch=7) == whole
    assert measured("two processes", batch=7, processes=2) == whole
    assert whole[0]["pictures_sha256"] != measured("another seed", seed=3)[0]["pictures_sha256"]


@pytest.mark.slow
def test_an_interruption_leaves_no_trace_in_the_pictures(measured, monkeypatch):
    from slam.evaluation.work import Studio

    whole, look, calls = measured("whole", batch=16), Studio.look, []

    def killed_in_the_second(studio, part):
        calls.append(part)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return look(studio, part)

    monkeypatch.setattr(Studio, "look", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        measured("cut", batch=8)
    assert measured("cut", batch=8) == whole
    assert [part.start for part in calls] == [0, 8, 8, 0, 8]  # the second row is drawn once
