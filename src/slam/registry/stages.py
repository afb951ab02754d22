"""The stages behind a student, as child runs of its own run: read from dvc.lock, where DVC keeps what it built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from slam import paths
from slam.files import read_json
from slam.registry.track import NAME, flatten

COUNTS = "counts.json"  # what a stage of the data counted, in the folder that it made


def read_lock(root: Path) -> dict[str, dict]:
    """Stage -> what DVC noted of it: cmd, params, deps and outs with their hashes. {} where DVC has built nothing."""
    lock = root / "dvc.lock"
    return (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.exists() else {}


def hashes(stage: dict) -> dict[str, str]:
    """{"dvc.data/latents": md5, …} of a stage's inputs and outputs."""
    items = [item for side in ("deps", "outs") for item in stage.get(side, ())]
    return {f"dvc.{item['path']}": item["md5"] for item in items if "md5" in item}


def log_stages(client: MlflowClient, parent: str, trained: str | None, root: Path) -> None:
    """A finished child run of `parent` for each stage; that of the training, `trained`, is there and becomes a child.

    A training that led to several registered students (measured anew, say) is the child of the latest.
    """
    for name, stage in read_lock(root).items():
        outs = [item["path"] for item in stage.get("outs", ())]
        tags = {MLFLOW_PARENT_RUN_ID: parent, "stage": name, "command": stage.get("cmd", ""), **hashes(stage)}
        if trained and str(paths.TRAIN) in outs:
            for key, value in tags.items():
                client.set_tag(trained, key, value)
            continue
        made = max([(root / path).stat().st_mtime for path in outs if (root / path).exists()], default=None)
        when = None if made is None else int(made * 1000)
        experiment = client.get_experiment_by_name(NAME).experiment_id
        run = client.create_run(experiment, start_time=when, tags=tags | {MLFLOW_RUN_NAME: name}).info.run_id
        params = [Param(key, str(value)) for key, value in flatten(_section(stage))]
        counts = [Metric(key, value, when or 0, 0) for key, value in _counts(root, outs)]
        client.log_batch(run, params=params, metrics=counts)
        client.set_terminated(run, end_time=when)
    if trained and not read_lock(root):
        client.set_tag(trained, MLFLOW_PARENT_RUN_ID, parent)


def _section(stage: dict) -> dict[str, Any]:
    """{"encode": {"batch": 64, …}}: what the stage read of its profile."""
    read = [item for file in stage.get("params", {}).values() for item in file.items()]
    return {key.split(".", 2)[-1]: value for key, value in read}


def _counts(root: Path, outs: list[str]) -> Iterator[tuple[str, float]]:
    for path in outs:
        if (root / path / COUNTS).is_file():
            for key, value in flatten(read_json(root / path / COUNTS, "dvc repro")):
                if isinstance(value, int | float):
                    yield f"{Path(path).name}/{key}".replace(" ", "_"), value
