"""Moves the aliases `champion`, `previous` and `challenger`, and leaves a record of each decision."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from slam import paths
from slam.errors import SlamError
from slam.files import sha256
from slam.registry.gate import Check, Records, judge, load_gate
from slam.registry.record import locked
from slam.registry.track import NAME, connect


class Decision(NamedTuple):
    version: str
    alias: str  # champion or challenger
    checks: list[Check]

    @property
    def reason(self) -> str:
        """What failed, or that nothing did."""
        return "; ".join(check.says for check in self.checks if not check.passed) or "every rule holds"


def promote(version: str, root: Path = Path()) -> Decision:
    """Judges `version` by mlflow/promotion.yaml: it becomes `champion` if every rule holds, else `challenger`.

    The old champion becomes `previous`. Promotions from one folder wait for each other. Raises `SlamError` when there
    is no such version, or when someone elsewhere moved the alias at the same moment.
    """
    gate = load_gate(root / paths.GATE)
    with locked(root):
        client = connect(root)
        candidate, champion = _version(client, version), holder(client, "champion")
        rival = champion if champion and champion.version != candidate.version else None
        checks = judge(gate, _records(client, candidate), _records(client, rival) if rival else None)
        checks.append(_draws(candidate))
        passed = all(check.passed for check in checks)
        decision = Decision(version, "champion" if passed else "challenger", checks)
        if passed and rival:
            client.set_registered_model_alias(NAME, "previous", rival.version)
        client.set_registered_model_alias(NAME, decision.alias, version)
        if passed and (old := holder(client, "challenger")) and str(old.version) == version:
            client.delete_registered_model_alias(NAME, "challenger")
        _audit(client, candidate, decision, rival, sha256(root / paths.GATE))
        moved = holder(client, decision.alias)
        if str(moved.version) != version:
            raise SlamError(f"alias {decision.alias}: set to version {version}, found {moved.version}: promote again")
    return decision


def holder(client: MlflowClient, alias: str) -> ModelVersion | None:
    """The version that `alias` names now."""
    aliases = client.get_registered_model(NAME).aliases
    return client.get_model_version(NAME, aliases[alias]) if alias in aliases else None


def _version(client: MlflowClient, version: str) -> ModelVersion:
    known = {str(item.version): item for item in client.search_model_versions(f"name = '{NAME}'")}
    if version not in known:
        raise SlamError(f"version {version} of {NAME} does not exist: there are {', '.join(sorted(known)) or 'none'}")
    return known[version]


def _records(client: MlflowClient, version: ModelVersion) -> Records:
    return mlflow.artifacts.load_dict(f"{client.get_run(version.run_id).info.artifact_uri}/{paths.METRICS.name}")


def _draws(version: ModelVersion) -> Check:
    """The registered model, loaded as a server would load it (plain diffusers), draws one picture."""
    try:
        model = mlflow.pyfunc.load_model(f"models:/{NAME}/{version.version}")
        model.predict(pd.DataFrame({"prompt": ["a picture"]}), params={"steps": 1})
    except Exception as error:  # whatever it is, it would also meet the user
        return Check("loads and draws", False, f"the registered model does not draw: {error}")
    return Check("loads and draws", True, "the registered model loads in diffusers and draws")


def _audit(
    client: MlflowClient, candidate: ModelVersion, decision: Decision, rival: ModelVersion | None, gate: str
) -> None:
    """The decision as tags of the version and as a JSON artifact of its run; older decisions stay beside it."""
    now = datetime.now(UTC)
    record = {
        "version": decision.version,
        "alias": decision.alias,
        "reason": decision.reason,
        "time": now.isoformat(timespec="seconds"),
        "champion_before": rival and str(rival.version),
        "gate_sha256": gate,
    }
    for key, value in record.items():
        client.set_model_version_tag(NAME, candidate.version, f"gate.{key}", str(value))
    checks = [check._asdict() for check in decision.checks]
    client.log_dict(candidate.run_id, {**record, "checks": checks}, f"decisions/{now:%Y%m%dT%H%M%S.%fZ}.json")
