"""Registration, promotion and the champion, in a real MLflow (SQLite and a folder)."""

import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from slam import config, paths
from slam.errors import SlamError
from slam.evaluation.generate import generate
from slam.files import sha256, write_json
from slam.models.diffusion import load
from slam.registry.card import description
from slam.registry.champion import champion_folder, model_folder
from slam.registry.promote import promote
from slam.registry.record import registration, remember
from slam.registry.register import register_stage
from tests.registry.records import good_records

PROFILE = config.load(Path(__file__).parents[2] / "params.yaml", "tiny")


def register(root: Path, fid: float = 10.0) -> str:
    """Registers the student as if it had been measured with this FID."""
    write_json(root / paths.METRICS, good_records(fid))
    return register_stage("tiny", PROFILE, root)


def registered(root: Path):
    number = register(root)  # connects
    return MlflowClient().get_model_version("slam", number)


def aliases() -> dict[str, str]:
    return {alias: str(version) for alias, version in MlflowClient().get_registered_model("slam").aliases.items()}


def test_a_version_holds_parameters_scores_pictures_hashes_of_the_data_and_its_environment(finished):
    version = registered(finished)
    run = mlflow.get_run(version.run_id)
    assert run.data.params["profile"] == "tiny"
    assert run.data.params["distill.k"] == str(PROFILE.distill.k)
    assert run.data.metrics["student/lcm/1/fid"] == 10.0
    assert run.data.metrics["teacher/dpmpp/1/fid"] == 40.0
    assert run.data.tags["dvc.teachers/tiny/unet"] == "456.dir"
    assert version.tags["dvc.data/latents"] == "ghi.dir"
    assert version.tags["protocol"] == "test-v1 (00000000)"
    assert version.tags["evaluation_sha256"] == sha256(finished / paths.METRICS)
    logged = {item.path for item in MlflowClient().list_artifacts(version.run_id)}
    assert {"metrics.json", "samples.png", "README.md", "environment.txt"} <= logged
    packages = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/environment.txt").splitlines()
    assert f"mlflow=={mlflow.__version__}" in packages
    assert {"hardware.cpu", "hardware.gpu", "environment.packages_sha256"} <= run.data.tags.keys()


def test_what_a_student_cost_is_told_from_its_plan_and_journal(finished):
    version = registered(finished)
    metrics = mlflow.get_run(version.run_id).data.metrics
    assert PROFILE.train.batch == 32
    assert metrics["cost/samples"] == 3 * 32
    assert metrics["cost/teacher_evaluations"] == 3 * 32 * 2  # k = k_phi: one rung, with the prompt and without
    assert metrics["cost/device_hours"] == pytest.approx(3 * 32 / 64 / 3600)


def test_the_stages_are_child_runs_with_their_parameters_counts_and_hashes(finished):
    parent, client = registered(finished).run_id, MlflowClient()
    runs = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent}'")
    children = {run.data.tags["stage"]: run for run in runs}
    assert children.keys() == {"filter", "encode", "train"}
    kept = children["filter"]
    assert kept.data.params == {"filter.survivors": "0.5", "filter.limits.aesthetic.min": "6.0"}
    assert kept.data.metrics == {"filtered/read": 100, "filtered/kept": 80, "filtered/reasons.aesthetic": 20}
    assert kept.data.tags["dvc.data/raw"] == "abc.dir"
    assert kept.info.status == "FINISHED"
    train = children["train"].info.run_id
    assert mlflow.get_run(parent).data.tags["slam.training_run"] == train
    loss = client.get_metric_history(train, "train/loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]


def test_the_card_of_a_student_is_in_its_registered_folder_and_on_its_version_and_names_its_run(finished):
    version = registered(finished)
    text = (model_folder(f"models:/slam/{version.version}", finished) / "README.md").read_text()
    head, body = yaml.safe_load(text.split("---\n")[1]), text.split("---\n", 2)[2]
    assert (head["pipeline_tag"], head["base_model"]) == ("text-to-image", "teachers/tiny")
    assert "| student | LCM | 4 | 1 | 10.00 |" in body
    assert f"| MLflow run | {version.run_id} |" in body
    assert "`data/filtered` def.dir" in body
    assert version.description == body.lstrip()
    assert not (finished / paths.STUDENT / "README.md").exists()  # DVC owns that folder


def test_a_card_longer_than_a_description_may_be_is_cut_at_a_line():
    text = "---\nhead: 1\n---\n\n# Title\n" + "| a row |\n" * 1000
    cut = description(text)
    assert len(cut) <= 5000
    rows, rest = cut.split("\nThe rest is in README.md")
    assert set(rows.splitlines()) == {"# Title", "| a row |"}
    assert description("---\nhead: 1\n---\n\n# Title\nshort\n") == "# Title\nshort\n"


def test_the_same_student_is_the_same_version_and_another_measurement_is_not(finished):
    assert [register(finished), register(finished), register(finished, fid=11.0), register(finished)] == [
        "1",
        "1",
        "2",
        "1",
    ]


@pytest.mark.slow
def test_a_better_student_takes_over_and_a_worse_one_only_challenges(finished):
    first, second, worse = register(finished, 10.0), register(finished, 9.0), register(finished, 15.0)
    assert promote(first, finished).alias == "champion"
    assert promote(second, finished).alias == "champion"
    assert aliases() == {"champion": second, "previous": first}
    decision = promote(worse, finished)
    assert decision.alias == "challenger"
    assert aliases() == {"champion": second, "previous": first, "challenger": worse}
    version = MlflowClient().get_model_version("slam", worse)
    assert version.tags["gate.reason"] == decision.reason
    assert "fid at 1 step 15, at most 1.15 x the champion's 9" in decision.reason
    (audit,) = MlflowClient().list_artifacts(version.run_id, "decisions")
    audit = mlflow.artifacts.load_dict(f"{mlflow.get_run(version.run_id).info.artifact_uri}/{audit.path}")
    assert (audit["alias"], audit["champion_before"]) == ("challenger", second)
    assert [check["rule"] for check in audit["checks"] if not check["passed"]] == [
        f"fid at {steps} against the champion" for steps in ("1 step", "2 steps", "4 steps")
    ]


def test_a_student_that_does_not_load_is_no_champion(finished):
    (finished / paths.STUDENT / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    decision = promote(register(finished), finished)
    assert decision.alias == "challenger"
    assert "does not draw" in decision.reason


@pytest.mark.slow
def test_the_champion_draws_what_slam_generate_draws_and_holds_no_pickle(finished):
    promote(register(finished), finished)
    folder = champion_folder(finished)
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert sha256(folder / weights) == sha256(finished / paths.STUDENT / weights)

    prompts = ["a large red circle", "a small blue square"]
    (ours,) = generate(load(folder), prompts, sampler="lcm", steps=2, seed=5, batch=2, label="test")
    served = mlflow.pyfunc.load_model("models:/slam@champion")
    answer = served.predict([{"prompt": prompt} for prompt in prompts], params={"steps": 2, "seed": 5})
    theirs = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in answer["png"]])
    difference = theirs.astype(int) - ours.pictures.permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(difference).max() <= 1  # levels of 255: diffusers rounds on its own

    assert not [path for path in (finished / "mlartifacts").rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]


def test_without_a_champion_the_message_says_what_to_do(finished):
    with pytest.raises(SlamError, match="no champion.*make demo.*--model DIR"):
        champion_folder(finished)
    (finished / "mlflow.db").unlink()
    with pytest.raises(SlamError, match="no champion.*does not exist.*make demo"):
        champion_folder(finished)


def test_without_a_student_or_such_a_version_the_message_says_so(finished, tmp_path):
    register(finished)
    with pytest.raises(SlamError, match="version 9 of slam does not exist: there are 1"):
        promote("9", finished)
    (finished / paths.METRICS).unlink()
    with pytest.raises(SlamError, match="metrics.json does not exist: run `slam evaluate` first"):
        register_stage("tiny", PROFILE, finished)


@pytest.mark.parametrize("changed", [paths.METRICS, paths.GATE, paths.STUDENT / "model_index.json", Path("mlflow.db")])
def test_the_registration_on_record_holds_until_anything_it_speaks_of_changes(finished, changed):
    remember(finished, "3", "champion")
    assert registration(finished)["version"] == "3"
    if changed.suffix == ".db":
        (finished / changed).unlink()
    elif changed.suffix == ".json":
        write_json(
            finished / changed, json.loads((finished / changed).read_text()) * 2 if changed == paths.METRICS else {}
        )
    else:
        (finished / changed).write_text((finished / changed).read_text() + "# another\n")
    assert registration(finished) is None
