"""A folder as `dvc repro` leaves it, with random weights: what registration and promotion read."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import LCMScheduler

from slam import config, paths
from slam.files import read_json, write_json
from slam.training.plan import Plan
from tests.registry.records import good_records

REPOSITORY = Path(__file__).parents[2]
PROFILE = config.load(REPOSITORY / "params.yaml", "tiny")
LOCK = """
schema: '2.0'
stages:
  filter:
    cmd: slam filter
    params: {params.yaml: {profiles.tiny.filter: {survivors: 0.5, limits: {aesthetic: {min: 6.0}}}}}
    deps: [{path: data/raw, md5: abc.dir}]
    outs: [{path: data/filtered, md5: def.dir}]
  encode:
    cmd: slam encode
    outs: [{path: data/latents, md5: ghi.dir}]
  train:
    cmd: slam train --restart
    deps: [{path: data/latents/index.json, md5: "123"}, {path: teachers/tiny/unet, md5: 456.dir}]
    outs: [{path: runs/train, md5: 789.dir}]
"""


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
    rate = {"lr": 1e-3, "samples_per_second": 64.0}
    journal = [{"step": step, "loss": 1 / step, "time": 1.7e9 + step, **rate} for step in (1, 2, 3)]
    (tmp_path / paths.TRAIN).mkdir(parents=True)
    Plan(str(random_teacher), "data/latents", PROFILE.distill, PROFILE.train, "0" * 64, "1" * 64).write(
        tmp_path / paths.TRAIN
    )
    (tmp_path / paths.TRAIN / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / paths.FILTERED).mkdir(parents=True)
    write_json(tmp_path / paths.FILTERED / "counts.json", {"read": 100, "kept": 80, "reasons": {"aesthetic": 20}})
    shutil.copytree(REPOSITORY / "mlflow", tmp_path / "mlflow")
    return tmp_path
