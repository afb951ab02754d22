"""Moves the aliases `champion`, `previous` and `challenger`, and leaves a record of each decision."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from slam import paths
from slam.errors import SlamError
from slam.files import sha256
from slam.registry.aliases import existing, find, holders, records
from slam.registry.audit import BEFORE, audit
from slam.registry.champion import folder
from slam.registry.gate import Check, judge, load_gate
from slam.registry.moves import OvertakenError, move, moved_by_hand
from slam.registry.remeasure import DRIFT
from slam.registry.track import NAME
from slam.registry.weights import check_draws, check_files


class Decision(NamedTuple):
    version: str
    alias: str  # champion or challenger
    checks: list[Check]
    before: str | None = None  # the champion before
    noticed: str | None = None  # that a person had moved the alias by hand

    @property
    def reason(self) -> str:
        """What failed, or that nothing did."""
        return "; ".join(check.says for check in self.checks if not check.passed) or "every rule holds"


def promote(version: str, root: Path = Path()) -> Decision:
    """Judges `version` by mlflow/promotion.yaml: it becomes `champion` if every rule holds, else `challenger`.

    It is held against whoever is champion when it is asked for, also one set by hand. The old champion becomes
    `previous`. Raises `SlamError`, with no alias changed, when there is no such version, when it was never measured,
    and `OvertakenError` when another became champion while this one was judged.
    """
    gate = load_gate(root / paths.GATE)
    client = existing(root)
    candidate = find(client, version)
    measured = records(client, candidate)
    before, noticed = holders(client).get("champion"), moved_by_hand(client)
    rival = find(client, before) if before not in (None, version) else None
    checks = [*judge(gate, measured, rival and _of_rival(client, rival)), *_sound(client, candidate, root)]
    passed = all(check.passed for check in checks)
    decision = Decision(version, "champion" if passed else "challenger", checks, before, noticed)
    earlier = before if before != version else candidate.tags.get(BEFORE)  # judged again, it keeps its place in the row
    told = {"champion_before": earlier, "noticed": noticed, "gate_sha256": sha256(root / paths.GATE)}
    aliases: dict[str, str | None] = {"challenger": version}
    if passed:
        aliases = {"previous": before} if rival else {}
        if holders(client).get("challenger") == version:
            aliases["challenger"] = None
        aliases["champion"] = version  # last: a promotion that is killed half-way leaves the champion as it was
    try:
        move(client, aliases, before)
    except OvertakenError as error:
        audit(client, candidate, checks, alias="none", reason=str(error), **told)
        raise OvertakenError(
            f"version {version} passed, but {error}. `slam promote {version}` judges it again"
        ) from None
    audit(client, candidate, checks, alias=decision.alias, reason=decision.reason, **told)
    return decision


def rollback(root: Path = Path(), only: str | None = None, why: str = "asked for") -> Decision:
    """`previous` becomes `champion` again, and `previous` the champion before that one, if it is known.

    The version that goes becomes `challenger`. With `only`, nothing is done unless that version is still champion.
    Raises `SlamError`, with no alias changed, when there is no `previous` or when it is not fit to be drawn from.
    """
    client = existing(root)
    aliases = holders(client)
    before, version = aliases.get("champion"), aliases.get("previous")
    if only not in (None, before):
        raise OvertakenError(f"champion is {before or 'nobody'}, not version {only}: nothing to roll back")
    if version in (None, before):
        raise SlamError("there is no previous champion to go back to: `slam promote VERSION` chooses another")
    noticed, candidate = moved_by_hand(client), find(client, version)
    checks = _sound(client, candidate, root)
    if failed := [check.says for check in checks if not check.passed]:
        raise SlamError(f"previous is version {version}, which is not fit: {'; '.join(failed)}; nothing was changed")
    earlier = candidate.tags.get(BEFORE)
    moves: dict[str, str | None] = {"challenger": before} if before else {}
    moves |= {"champion": version, "previous": earlier if earlier != before and _exists(client, earlier) else None}
    move(client, moves, before)
    told = {"noticed": noticed, "champion_before": earlier}
    audit(client, candidate, checks, alias="champion", reason=f"rolled back to from {before}: {why}", **told)
    if before:
        gone = f"rolled back to version {version}: {why}"
        audit(client, find(client, before), [], alias="challenger", reason=gone, champion_before=version)
    return Decision(version, "champion", checks, before, noticed)


def _exists(client: MlflowClient, version: str | None) -> bool:
    return bool(client.search_model_versions(f"name = '{NAME}' and version_number = {version}")) if version else False


def _of_rival(client: MlflowClient, rival: ModelVersion) -> list[dict]:
    try:
        return records(client, rival)
    except SlamError as error:
        raise SlamError(
            f"the champion cannot be compared with: {error}; or take its alias away (mlflow/README.md)"
        ) from None


def _sound(client: MlflowClient, version: ModelVersion, root: Path) -> list[Check]:
    """What must hold for any champion, however well it was measured."""
    drift = version.tags.get(DRIFT)
    checks = [Check("no drift", not drift, drift or "no re-evaluation found it changed")]
    try:
        checks += check_files(folder(client, version, root), version.tags.get("files_sha256"))
    except SlamError as error:
        checks.append(Check("files as registered", False, str(error)))
    return [*checks, check_draws(version)]
