"""The main job: every stage of dvc.yaml, then registration and the promotion gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import artifacts, checkout, graph, stages
from flows.overrides import settle
from flows.promote import promote
from flows.retries import REGISTRY
from slam import config, paths
from slam.errors import SlamError
from slam.registry.record import remember


@task(task_run_name="register", cache_policy=NO_CACHE, **REGISTRY)
def register(profile: str) -> str:
    """The version of the student that the stages left."""
    from slam.registry.register import register_stage

    version = register_stage(profile, config.load())
    get_run_logger().info("the student is version %s of slam in MLflow", version)
    return version


@flow(name="slam-train")
def slam_train(
    profile: str | None = None, overrides: dict[str, Any] | None = None, only: list[str] | None = None
) -> dict[str, str]:
    """Builds what is stale, registers the student, lets the gate decide.

    Args:
        profile: of params.yaml; the one that the file names by default.
        overrides: values of the profile's keys, as {"train.steps": 100}. DVC builds what params.yaml says, so profile
            and overrides are written into that file and stay there; the log shows what changed.
        only: these stages of dvc.yaml and no other, on what the earlier ones have left; no registration follows.

    Returns:
        {"version", "alias"}, or {} after `only`.
    """
    checkout.ready()
    with checkout.taken():
        chosen = chosen_stages(only)
        name, changes = settle(Path("params.yaml"), profile, overrides or {})
        if changes:
            get_run_logger().info("params.yaml, as this run was asked to:\n%s", changes)
        for stage in chosen:
            stages.build(stage)
        if only:
            return {}
        version = register(name)
        alias = promote(version)
        remember(Path(), version, alias)
        artifacts.results(f"slam version {version}: {alias}", paths.METRICS.parent)
        return {"version": version, "alias": alias}


def chosen_stages(only: list[str] | None, root: Path = Path()) -> list[str]:
    """The stages to build, in the order of the graph. Raises `SlamError` for a name that dvc.yaml does not have."""
    known = graph.names(root)
    if unknown := [name for name in only or () if name not in known]:
        raise SlamError(f"only: {', '.join(unknown)}: no such stage in dvc.yaml; there are {', '.join(known)}")
    return [name for name in known if not only or name in only]
