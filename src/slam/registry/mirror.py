"""The training journal in an MLflow run: each number exactly once, whatever happens to either side.

The journal is the truth. What the server acknowledged is noted beside the checkout, in `.slam/training/`, for each
training (its fingerprint) and server. Where that may be wrong (at the start, and after every failure: a request may
have been carried out although its answer never came), the server is asked what it has before anything is sent.

A step that is trained again, behind a kill or because `runs/train` was removed, gives the same numbers (to rounding
with another number of processes) and is not sent again: its time and rate in MLflow are those of the first time.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from slam.files import locked, read_json, write_json
from slam.registry.record import tracking_uri
from slam.registry.track import BATCH, NAME, connect, flatten, step_metrics
from slam.training.journal import Tail
from slam.training.plan import Plan, read_plan

KEY = "slam.training"  # tag of a run: which training of which checkout it shows
PICTURES = "pictures"  # folder in the run's folder, and of the artifacts


def state_file(root: Path, fingerprint: str) -> Path:
    """{"key", "runs": {tracking URI: {"run_id", "acknowledged"}}} of a training."""
    return root / ".slam" / "training" / f"{fingerprint[:16]}.json"


def mirror_of(folder: Path, root: Path, before: Mirror | None = None) -> Mirror | None:
    """Of the training that is in `folder` now: `before`, if that is the same one. None before there is any."""
    if not (folder / "plan.json").exists():
        return None
    plan = read_plan(folder)
    if before and before.plan.fingerprint == plan.fingerprint:
        return before
    if before:
        before.close()
    return Mirror(plan, folder, root)


def drain(folder: Path, root: Path) -> str | None:
    """Sends what the server lacks of the training in `folder`; returns its run's id, None where nothing was trained.

    The caller makes that run a child of the pipeline's: tag `mlflow.parentRunId`.
    """
    mirror = mirror_of(folder, root)
    if mirror is None:
        return None
    with closing(mirror):
        if mirror.read():
            mirror.send()
            mirror.finish()
        return mirror.run["run_id"]


class Mirror:
    """Of the training `plan` in `folder`, on the tracking server or in the SQLite file of `root`.

    One at a time: raises `SlamError` while another process has one.
    """

    def __init__(self, plan: Plan, folder: Path, root: Path) -> None:
        self.plan, self.folder, self.root, self.uri = plan, folder, root, tracking_uri(root)
        self.file = state_file(root, plan.fingerprint)
        self.lock = ExitStack()
        self.lock.enter_context(
            locked(self.file.with_suffix(".lock"), f"process sends the journal in {folder} to MLflow")
        )
        self.state = read_json(self.file, "slam train") if self.file.exists() else {"key": uuid.uuid4().hex, "runs": {}}
        self.tail = Tail(folder / "journal.jsonl")
        self.pending: dict[int, dict] = {}  # step to line of the journal
        self.pictures = 0  # files of which the server is known to have every one
        self.client: MlflowClient | None = None  # None where it is in doubt what the server has

    def close(self) -> None:
        self.tail.close()
        self.lock.close()

    @property
    def run(self) -> dict[str, Any]:
        return self.state["runs"].get(self.uri, {"run_id": None, "acknowledged": 0})

    def read(self) -> int:
        """Takes in what is new in the journal; returns how many steps are not acknowledged."""
        for line in self.tail.read():
            if line["step"] > self.run["acknowledged"]:
                # The first version of a step stays: trained again after a kill, it differs in its time alone.
                self.pending.setdefault(line["step"], line)
        return len(self.pending)

    def send(self) -> None:
        """Everything that is pending. Raises whatever the way to the server raises; what was acknowledged stays so."""
        try:
            if self.client is None:
                self.client, there = self._meet()
            else:
                there = {}
            for steps in _batches(self.pending):
                metrics = [metric for step in steps for metric in step_metrics(self.pending[step])]
                new = [metric for metric in metrics if metric.step not in there.get(metric.key, ())]
                if new:
                    self.client.log_batch(self.run["run_id"], metrics=new)
                self._keep(acknowledged=steps[-1])
                for step in steps:
                    del self.pending[step]
            self._send_pictures()
        except BaseException:
            self.client = None
            raise

    def finish(self) -> None:
        """Says in the run how the training stands, once all is sent."""
        ended = self.run["acknowledged"] >= self.plan.train.steps
        self.client.set_terminated(self.run["run_id"], "FINISHED" if ended else "KILLED")

    def _meet(self) -> tuple[MlflowClient, dict[str, set[int]]]:
        """A client, and for each metric the steps that the run has; makes the run if there is none."""
        client = connect(self.root)
        experiment = client.get_experiment_by_name(NAME).experiment_id
        self._save()  # the key before the run: a run whose answer is lost is found by it
        found = client.search_runs([experiment], f"tags.`{KEY}` = '{self.state['key']}'", max_results=1)
        if found:
            run = found[0]
            client.update_run(run.info.run_id, "RUNNING")
        else:
            tags = {KEY: self.state["key"], MLFLOW_RUN_NAME: f"train {self.plan.fingerprint[:8]}"}
            run = client.create_run(experiment, tags=tags)
        run_id = run.info.run_id
        if run_id != self.run["run_id"]:
            self._keep(run_id=run_id, acknowledged=0)
            self.tail, self.pending = Tail(self.tail.path), {}
            self.read()
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flatten(self.plan.identity)])
        keys = [key for key in run.data.metrics if key.startswith("train/")] if self.pending else []
        return client, {key: {point.step for point in client.get_metric_history(run_id, key)} for key in keys}

    def _send_pictures(self) -> None:
        pictures = sorted((self.folder / PICTURES).glob("*.png"))
        if len(pictures) > self.pictures:
            there = {Path(item.path).name for item in self.client.list_artifacts(self.run["run_id"], PICTURES)}
            for picture in pictures:
                if picture.name not in there:
                    self.client.log_artifact(self.run["run_id"], str(picture), PICTURES)
            self.pictures = len(pictures)

    def _keep(self, **changes: Any) -> None:
        self.state["runs"][self.uri] = {**self.run, **changes}
        self._save()

    def _save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.state)


def _batches(pending: dict[int, dict]) -> list[list[int]]:
    """The steps, in order, in parts whose numbers fit a request each."""
    steps, parts, size = sorted(pending), [], BATCH
    for step in steps:
        more = len(step_metrics(pending[step]))
        if size + more > BATCH:
            parts.append([])
            size = 0
        parts[-1].append(step)
        size += more
    return parts
