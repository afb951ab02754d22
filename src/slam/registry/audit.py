"""The record of a decision: tags of the version, a JSON file and a row a rule in the table of its run."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from slam.registry.gate import Check
from slam.registry.track import NAME

TABLE = "decisions.json"  # mlflow.load_table("decisions.json") gathers it over all runs
BEFORE = "gate.champion_before"  # tag: the champion that this version replaced, or was held against
TAGS = ("alias", "reason", "time", "champion_before", "noticed")  # as gate.alias and so on; the file has more


def audit(client: MlflowClient, version: ModelVersion, checks: list[Check], **told: str | None) -> None:
    """Older decisions stay beside it in the run; the version's tags `gate.*` are of the last one."""
    now = datetime.now(UTC)
    record = {"version": str(version.version), "time": now.isoformat(timespec="seconds"), **told}
    for key in TAGS:
        if record.get(key) is not None:
            client.set_model_version_tag(NAME, version.version, f"gate.{key}", record[key][:5000])
        elif f"gate.{key}" in version.tags:
            client.delete_model_version_tag(NAME, version.version, f"gate.{key}")
    if not _has_run(client, version):
        return  # made by hand: its tags are all that there is
    rules = [check._asdict() for check in checks]
    client.log_dict(version.run_id, {**record, "checks": rules}, f"decisions/{now:%Y%m%dT%H%M%S.%fZ}.json")
    decided = {"rule": "decision", "passed": told["alias"] == "champion", "says": told["reason"]}
    common = {key: record.get(key) or "" for key in ("version", "time", "alias", "champion_before", "noticed")}
    rows = [{"rule": row["rule"], "passed": row["passed"], "says": row["says"], **common} for row in (decided, *rules)]
    client.log_table(version.run_id, pd.DataFrame(rows), TABLE)


def _has_run(client: MlflowClient, version: ModelVersion) -> bool:
    try:
        return bool(version.run_id and client.get_run(version.run_id))
    except MlflowException:
        return False
