import json

import numpy as np
import pytest
from PIL import Image

from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation.evaluate import evaluate_stage
from slam.evaluation.rows import table_rows
from slam.evaluation.work import Studio

KEYS = {"model", "sampler", "steps", "guidance", "fid", "clip_score", "faithfulness", "seconds_per_image", "n", "seed"}


@pytest.fixture
def run(random_teacher, random_student, evaluation_set, tmp_path):
    def stage(config, **changed):
        inputs = {"teacher": str(random_teacher), "student": random_student, "evaluation": evaluation_set} | changed
        return evaluate_stage(config, **inputs, reports=tmp_path), json.loads((tmp_path / "metrics.json").read_text())

    return stage


def test_each_row_is_a_record_and_a_column_of_the_picture(config, run, tmp_path):
    summary, records = run(config)
    assert [(r["model"], r["sampler"], r["steps"], r["guidance"]) for r in records] == [
        ("vae", "reconstruction", 0, 1.0),
        ("teacher", "ddim", 4, 2.0),
        ("teacher", "ddim", 1, 2.0),
        ("teacher", "ddim", 2, 2.0),
        ("teacher", "unipc", 1, 2.0),
        ("teacher", "unipc", 2, 2.0),
        ("student", "lcm", 1, 1.0),
        ("student", "lcm", 2, 1.0),
    ]
    assert summary["rows"] == len(records)
    assert all(KEYS | {"protocol", "protocol_hash"} <= r.keys() for r in records)
    assert len({r["protocol_hash"] for r in records}) == 1
    assert all(r["n"] == 16 and r["seed"] == 2 and r["seconds_per_image"] > 0 and r["fid"] > 0 for r in records)
    assert all(0 <= r["faithfulness"] <= 1 and -100 <= r["clip_score"] <= 100 for r in records)
    assert (tmp_path / "table.md").read_text().count("\n| student |") == 2
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture)[60:, 200:].std() > 10


@pytest.fixture
def drawn(monkeypatch):
    """The parts (row, start) that are drawn, in order; `stop_at` of them ends the evaluation."""
    parts, look = [], Studio.look

    def watched(studio, part):
        parts.append((part.row, part.start))
        if len(parts) == watched.stop_at:
            raise KeyboardInterrupt
        return look(studio, part)

    watched.stop_at = None
    monkeypatch.setattr(Studio, "look", watched)
    return parts, watched


def test_a_killed_evaluation_goes_on_from_the_part_where_it_stopped(config, run, drawn, tmp_path):
    parts, watched = drawn
    few = config.model_copy(update={"samplers": (), "steps": (1,), "teacher_steps": 1, "batch": 5})
    watched.stop_at = 7  # the third of the four parts of the second row
    with pytest.raises(KeyboardInterrupt):
        run(few)
    assert not (tmp_path / "metrics.json").exists()
    _, resumed = run(few)
    rows = [(row, start) for row in table_rows(few) for start in (0, 5, 10, 15)]
    assert parts == [*rows[:7], *rows[6:]]
    (tmp_path / "metrics.json").unlink()
    parts.clear()
    _, again = run(few)
    assert not parts
    assert again == resumed
    assert not list(tmp_path.glob(".evaluation/part-*"))


@pytest.mark.slow
def test_a_new_student_redraws_only_the_students_rows(config, run, random_teacher, drawn):
    parts, _ = drawn
    _, before = run(config)
    parts.clear()
    _, after = run(config, student=random_teacher)
    assert {row.model for row, _ in parts} == {"student"}
    assert before[:-2] == after[:-2]
    assert before[-1]["fid"] != after[-1]["fid"]


@pytest.mark.parametrize("change", [{"seed": 3}, {"samples": 15}, {"protocol": "own"}, {"judge": None}])
def test_a_change_of_the_protocol_or_its_inputs_changes_the_hash(config, evaluation_set, change):
    def hash(config):
        studio = Studio(config, {}, evaluation_set, "cpu")
        return studio.protocol.hash(studio.facts)

    same = config.model_copy(update={"batch": 1, "processes": 2, "rows": 1, "steps": (1,)})
    assert hash(same) == hash(config) != hash(config.model_copy(update=change))


def test_the_same_weights_draw_the_same_for_both_models(config, run, random_teacher):
    """The student's rows against the teacher's own, with the teacher as its student and one sampler for both."""
    _, records = run(config.model_copy(update={"guidance": 1.0}), student=random_teacher)
    ours = {(r["model"], r["steps"]): r for r in records if r["sampler"] in ("ddim", "lcm")}
    assert ours["teacher", 1]["model_sha256"] == ours["student", 1]["model_sha256"]


@pytest.mark.slow
def test_the_champion_stands_beside_the_student_in_table_and_pictures(config, run, random_teacher, tmp_path):
    few = config.model_copy(update={"samplers": (), "steps": (1,), "teacher_steps": 1})
    _, records = run(few, champion=random_teacher)
    ours = {record["model"]: record for record in records}
    assert list(ours) == ["vae", "teacher", "champion", "student"]
    assert ours["champion"]["model_sha256"] == ours["teacher"]["model_sha256"] != ours["student"]["model_sha256"]
    assert ours["champion"]["protocol_hash"] == ours["student"]["protocol_hash"]
    widths = {}
    for name in ("samples.png", "worst.png"):
        with Image.open(tmp_path / name) as picture:
            widths[name] = picture.width
    run(few)
    for name, width in widths.items():
        with Image.open(tmp_path / name) as picture:
            assert width - picture.width == 96 + 16, name  # one column


def test_a_protocol_on_inception_refuses_other_features_before_anything_is_drawn(config, run, tmp_path):
    coco = Evaluate(**config.model_dump() | {"protocol": "coco2017-5k/first-caption", "samples": None})
    studio = Studio(coco, {}, tmp_path, "cpu")
    with pytest.raises(SlamError, match="protocol coco2017-5k/first-caption needs the file of the Inception weights"):
        studio.instruments  # noqa: B018


def test_a_missing_student_says_what_to_run(config, run, tmp_path):
    with pytest.raises(SlamError, match="run `slam select` first"):
        run(config, student=tmp_path / "none")
