import json

import numpy as np
import pytest
from PIL import Image

from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation import evaluate
from slam.evaluation.evaluate import evaluate_stage, table_rows

KEYS = {"model", "sampler", "steps", "guidance", "fid", "clip_score", "faithfulness", "seconds_per_image", "n", "seed"}


@pytest.fixture
def config(random_judge, random_clip):
    return Evaluate(
        protocol="test-v1",
        samples=16,
        steps=(1, 2),
        samplers=("ddim", "unipc"),
        teacher_steps=4,
        guidance=2.0,
        features=str(random_judge),
        clip=str(random_clip),
        judge=str(random_judge),
        batch=5,
        rows=3,
        seed=2,
    )


@pytest.fixture
def run(random_teacher, random_student, evaluation_set, tmp_path):
    def stage(config, **changed):
        inputs = {"teacher": str(random_teacher), "student": random_student, "evaluation": evaluation_set} | changed
        out = {name: tmp_path / name for name in ("metrics", "samples", "table")}
        return evaluate_stage(config, **inputs, **out), json.loads(out["metrics"].read_text())

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
    assert (tmp_path / "table").read_text().count("\n| student |") == 2
    with Image.open(tmp_path / "samples") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture)[60:, 200:].std() > 10


def test_a_killed_evaluation_goes_on_where_it_stopped(config, run, monkeypatch, tmp_path):
    drawn, drawing = [], evaluate.drawing

    def killed_at_the_fourth(row, *rest):
        drawn.append(row)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return drawing(row, *rest)

    monkeypatch.setattr(evaluate, "drawing", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert not (tmp_path / "metrics").exists()
    _, resumed = run(config)
    assert drawn[4:] == table_rows(config)[3:]
    (tmp_path / "metrics").unlink()
    drawn.clear()
    _, again = run(config)
    assert not drawn
    assert again == resumed


def test_a_new_student_redraws_only_the_students_rows(config, run, random_teacher, random_student, monkeypatch):
    _, before = run(config)
    drawn, drawing = [], evaluate.drawing
    monkeypatch.setattr(evaluate, "drawing", lambda row, *rest: drawn.append(row) or drawing(row, *rest))
    _, after = run(config, student=random_teacher)
    assert [row.model for row in drawn] == ["student", "student"]
    assert before[:-2] == after[:-2]
    assert before[-1]["fid"] != after[-1]["fid"]


@pytest.mark.parametrize("change", [{"seed": 3}, {"samples": 15}, {"clip_prefix": "a photo of "}, {"judge": None}])
def test_a_change_of_the_protocol_changes_its_hash(config, run, change):
    few = config.model_copy(update={"samplers": (), "steps": (1,), "teacher_steps": 1})
    (_, first), (_, second) = run(few), run(few.model_copy(update=change))
    assert first[0]["protocol_hash"] != second[0]["protocol_hash"]
    if change == {"judge": None}:
        assert all(record["faithfulness"] is None for record in second)


def test_the_same_weights_draw_the_same_for_both_models(config, run, random_teacher):
    """The student's rows against the teacher's own, with the teacher as its student and one sampler for both."""
    _, records = run(config.model_copy(update={"guidance": 1.0}), student=random_teacher)
    ours = {(r["model"], r["steps"]): r for r in records if r["sampler"] in ("ddim", "lcm")}
    assert ours["teacher", 1]["model_sha256"] == ours["student", 1]["model_sha256"]


def test_a_missing_student_says_what_to_run(config, run, tmp_path):
    with pytest.raises(SlamError, match="run `slam select` first"):
        run(config, student=tmp_path / "none")
