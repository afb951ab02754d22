"""Measures a model under the protocol of params.yaml, and a registered version against what it was registered as."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.states import Completed, State

from flows import artifacts, checkout, stages
from flows.drift import Drift, drifts
from flows.retries import REGISTRY
from slam import config, paths
from slam.errors import SlamError
from slam.files import read_json
from slam.registry.announce import DRIFTED, MODEL, ROLLED_BACK

OUT = Path("reports/evaluations")


@task(task_run_name="find {model}", cache_policy=NO_CACHE, **REGISTRY)
def find(model: str) -> str:
    """The version that `model`, a models:/ URI, names now."""
    from slam.registry.aliases import version_of

    version = version_of(model)
    get_run_logger().info("%s is version %s", model, version)
    return version


@task(task_run_name="measure {model}", cache_policy=NO_CACHE)
def measure(model: str, profile: str | None, out: Path) -> list[dict]:
    """The records of `model`; they, a table and pictures are in `out`."""
    chosen = ["--profile", profile] if profile else []
    command = [sys.executable, "-m", "slam.cli", "evaluate", "--model", model, "--out", str(out), *chosen]
    if last := stages.child(command, "evaluate"):
        raise SlamError(stages.own_words(last))
    for row in (out / paths.DRAWN).glob("row-*"):  # kept for a killed evaluation to go on; the next one draws anew
        row.unlink()
    return read_json(out / paths.METRICS.name, "slam evaluate")


@task(task_run_name="compare version {version}", cache_policy=NO_CACHE, **REGISTRY)
def compare(version: str, records: list[dict]) -> list[Drift]:
    """What left its interval since `version` was registered. Measurement and finding are recorded with the version."""
    from slam.registry import remeasure
    from slam.registry.aliases import registered_records

    found = drifts(registered_records(version), records)
    remeasure.record(version, records)
    remeasure.mark_drift(version, [str(item) for item in found])
    return found


@task(task_run_name="roll back version {version}", cache_policy=NO_CACHE, **REGISTRY)
def roll_back(version: str) -> str | None:
    """Gives the alias champion back to the former one, if `version` still has it; returns the champion then."""
    from slam.registry.moves import OvertakenError
    from slam.registry.promote import rollback

    try:
        decision = rollback(only=version, why="it has drifted")
    except OvertakenError as error:
        get_run_logger().warning("%s", error)
        return None
    emit_event(ROLLED_BACK, resource=MODEL, payload={"version": decision.version, "from": version})
    return decision.version


@flow(name="slam-evaluate")
def slam_evaluate(
    model: str = "models:/slam@champion", profile: str | None = None, rollback: bool = False
) -> State[dict] | dict:
    """Measures a model; of a version of the registry, tells whether it has drifted from what it was registered as.

    Args:
        model: models:/slam@ALIAS, models:/slam/VERSION, a diffusers folder, one of LoRA adapters, or a hub id.
        profile: of params.yaml, whose section `evaluate` is the protocol; the one that the file names by default.
        rollback: whether a champion that has become worse loses its place to the former one.

    Returns:
        {"version", "drifts", "champion"}; on drift as a state of the name Drifted. {} if it is of no registry.
    """
    checkout.ready()
    config.load(profile=profile)
    with checkout.taken():
        version = find(model) if model.startswith("models:") else None
        name = f"slam-{version}" if version else re.sub(r"\W+", "-", model).strip("-")
        records = measure(f"models:/slam/{version}" if version else model, profile, OUT / name)
        artifacts.results(f"{model}, version {version}" if version else model, OUT / name)
        if not version:
            return {}
        found = compare(version, records)
        result = {"version": version, "drifts": [str(item) for item in found], "champion": None}
        if not found:
            return result
        emit_event(DRIFTED, resource=MODEL, payload={"version": version, "drifts": result["drifts"]})
        lines = "".join(f"* {line}\n" for line in result["drifts"])
        title = f"slam version {version} has drifted"
        create_markdown_artifact(f"# {title}\n\nOutside its 95% interval:\n\n{lines}", key="drift", description=title)
        if rollback and any(item.worse for item in found):
            result["champion"] = roll_back(version)
        after = f"; version {result['champion']} is champion again" if result["champion"] else ""
        return Completed(name="Drifted", message="; ".join(result["drifts"]) + after, data=result)
