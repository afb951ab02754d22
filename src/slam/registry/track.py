"""MLflow runs: what went into a student, what came out, how its training went."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from slam import paths
from slam.registry.record import tracking_uri
from slam.registry.server import require_answer

NAME = "slam"  # of the experiment and of the registered model
STUDY = "slam-study"  # the experiment of the study's reports
PICTURES_AND_TABLES = (paths.METRICS, paths.SAMPLES, paths.WORST, paths.TRADEOFF, paths.TABLE, paths.SELECTION)
# Of a record; its other numbers were measured
SETTINGS = {"model", "sampler", "steps", "guidance", "n", "seed", "protocol_version"}
BATCH = 1000  # metrics a request; the server takes no more


def connect(root: Path, experiment: str = NAME) -> MlflowClient:
    """A client of the tracking server, or of the SQLite file in `root`; makes the experiment if it is not there."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    uri = tracking_uri(root)
    if uri.startswith("http"):
        require_answer("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    if client.get_experiment_by_name(experiment) is None:
        local = uri.startswith("sqlite:")  # a server has a place of its own for artifacts
        client.create_experiment(experiment, (root / "mlartifacts").absolute().as_uri() if local else None)
    mlflow.set_experiment(experiment)
    return client


def log_report(root: Path, name: str, files: list[Path], metrics: dict[str, float]) -> None:
    """A run of the experiment `slam-study`: the files or folders of a report, and its numbers."""
    client = connect(root, STUDY)
    with mlflow.start_run(run_name=name) as run:
        now = int(time.time() * 1000)
        client.log_batch(run.info.run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
        for key, value in git_revision(root).items():
            client.set_tag(run.info.run_id, key, value)
        for path in files:
            if path.exists():
                client.log_artifact(run.info.run_id, str(path))


def log_inputs_and_results(
    client: MlflowClient, run_id: str, profile: dict, cost: dict[str, float], root: Path
) -> None:
    """Parameters, evaluation, cost, pictures and the revision of the code, in a few requests."""
    now = int(time.time() * 1000)
    metrics = [*evaluation(root / paths.METRICS), *(Metric(key, value, now, 0) for key, value in cost.items())]
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flatten(profile)])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    for key, value in git_revision(root).items():
        client.set_tag(run_id, key, value)
    for path in PICTURES_AND_TABLES:
        if (root / path).exists():
            client.log_artifact(run_id, str(root / path))


def flatten(values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"train": {"steps": 480}} -> ("train.steps", 480)"""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def evaluation(path: Path) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(key, value, now, 0) for key, value in scores(json.loads(path.read_text()))]


def scores(records: list[dict]) -> Iterator[tuple[str, float]]:
    """`student/lcm/4/fid` and the like, with `fid_low` and `fid_high` of an interval, as far as they were measured."""
    for record in records:
        row = f"{record['model']}/{record['sampler'].replace('+', 'p')}/{record['steps']}"
        for key, value in record.items():
            name = f"{row}/{key.removesuffix('_interval')}"
            if key.endswith("_interval") and value:
                yield from zip((f"{name}_low", f"{name}_high"), value, strict=True)
            elif key not in SETTINGS and isinstance(value, int | float):
                yield name, value


def step_metrics(line: dict) -> list[Metric]:
    """Of one line of the journal: each of its numbers at the line's step and time."""
    return [
        Metric(f"train/{key}", value, int(line["time"] * 1000), line["step"])
        for key, value in line.items()
        if key not in ("step", "time") and value is not None
    ]


def git_revision(root: Path) -> dict[str, str]:
    """The commit, and whether anything tracked differs from it. Empty outside git."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    head = git("rev-parse", "HEAD")
    if head.returncode:
        return {}
    dirty = bool(git("status", "--porcelain", "--untracked-files=no").stdout.strip())
    return {"mlflow.source.git.commit": head.stdout.strip(), "git.dirty": str(dirty).lower()}
