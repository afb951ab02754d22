"""What later evaluations found of a version: attached to its run, and a mark on the version if it has drifted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import Metric

from slam.errors import SlamError
from slam.registry.aliases import existing, find
from slam.registry.gate import Records
from slam.registry.track import NAME, scores

DRIFT = "drift"  # tag of a version; it may not become champion while it has it
FOLDER = "evaluations"  # of the version's run


def record(version: str, records: Records, root: Path = Path()) -> None:
    """Keeps a new evaluation of `version`: as JSON in its run, and as `again/student/lcm/4/fid` and the like over time.

    What it was registered with stays as it is. Raises `SlamError` when there is no such version, or no records.
    """
    if not records:
        raise SlamError(f"version {version}: expected the records of an evaluation, found none")
    client = existing(root)
    run, now = find(client, version).run_id, datetime.now(UTC)
    if not run:
        raise SlamError(f"version {version} of {NAME} has no run that could hold its evaluation")
    client.log_dict(run, records, f"{FOLDER}/{now:%Y%m%dT%H%M%S.%fZ}.json")
    step, stamp = len(client.list_artifacts(run, FOLDER)), int(time.time() * 1000)
    client.log_batch(run, metrics=[Metric(f"again/{key}", value, stamp, step) for key, value in scores(records)])
    client.set_model_version_tag(NAME, version, "measured_again", now.isoformat(timespec="seconds"))


def mark_drift(version: str, findings: Sequence[str], root: Path = Path()) -> None:
    """Tags `version` with what has left its interval, a line each; takes the mark away when nothing has.

    A marked version keeps its aliases, but no promotion and no rollback makes it champion.
    """
    client = existing(root)
    tags = find(client, version).tags
    if findings:
        client.set_model_version_tag(NAME, version, DRIFT, "; ".join(findings)[:5000])
    elif DRIFT in tags:
        client.delete_model_version_tag(NAME, version, DRIFT)
