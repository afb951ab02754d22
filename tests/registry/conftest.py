"""A folder as `dvc repro` leaves it, with random weights: what registration and promotion read."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import LCMScheduler

from slam import paths
from slam.files import read_json, write_json
from tests.registry.records import good_records

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An MLflow database with its tables and nothing in them; making one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def finished(tmp_path, random_teacher, empty_database, monkeypatch) -> Path:
    """A checkout in which every stage has run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path)
    student = tmp_path / paths.STUDENT
    shutil.copytree(random_teacher, student)
    LCMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    ).save_pretrained(student / "scheduler")
    index = read_json(student / "model_index.json", "")
    write_json(student / "model_index.json", {**index, "scheduler": ["diffusers", "LCMScheduler"]})
    write_json(tmp_path / paths.METRICS, good_records())
    (tmp_path / paths.SAMPLES).write_bytes(b"\x89PNG")
    journal = [{"step": step, "loss": 1 / step, "lr": 1e-3, "time": 1.7e9 + step} for step in (10, 20, 30)]
    (tmp_path / paths.TRAIN).mkdir(parents=True)
    (tmp_path / paths.TRAIN / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
    (tmp_path / "dvc.lock").write_text("stages:\n  encode:\n    outs:\n    - {path: data/latents, md5: abc.dir}\n")
    shutil.copytree(REPOSITORY / "mlflow", tmp_path / "mlflow")
    return tmp_path
