"""The main job: every stage of dvc.yaml, then registration and the promotion gate."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows import graph, stages
from slam import config, paths
from slam.errors import SlamError
from slam.registry.record import remember


@task(task_run_name="register", cache_policy=NO_CACHE)
def register(profile: str) -> str:
    """The version of the student that the stages left."""
    from slam.registry.register import register_stage

    version = register_stage(profile, config.load())
    get_run_logger().info("the student is version %s of slam in MLflow", version)
    return version


@task(task_run_name="promote", cache_policy=NO_CACHE)
def promote(version: str) -> str:
    """The alias that the gate gives to `version`: champion or challenger."""
    from slam.registry.promote import promote as decide

    decision, log = decide(version), get_run_logger()
    for check in decision.checks:
        log.info("%s  %s", "pass" if check.passed else "FAIL", check.says)
    log.info("version %s is %s: %s", version, decision.alias, decision.reason)
    return decision.alias


@flow(name="slam-train")
def slam_train(profile: str | None = None) -> dict[str, str]:
    """Builds what is stale, registers the student, lets the gate decide; returns {"version", "alias"}.

    `profile`, if given, must be the one that params.yaml names, because DVC builds what that file says.
    """
    for runs in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(runs).addFilter(is_no_mistake)
    name = chosen_profile(profile)
    for stage in graph.names():
        stages.build(stage)
    version = register(name)
    alias = promote(version)
    remember(Path(), version, alias)
    table = paths.TABLE.read_text(encoding="utf-8")
    create_markdown_artifact(key="evaluation", markdown=f"# slam version {version}: {alias}\n\n{table}")
    return {"version": version, "alias": alias}


def chosen_profile(asked: str | None, params: Path = Path("params.yaml")) -> str:
    config.load(params)  # a mistake in the file is said before any stage runs
    name = yaml.safe_load(params.read_text(encoding="utf-8"))["profile"]
    if asked not in (None, name):
        raise SlamError(
            f"profile {asked!r} was asked for, but DVC builds {params}'s: set `profile: {asked}` in that file"
        )
    return name


def is_no_mistake(record: logging.LogRecord) -> bool:
    """False for the traceback of a `SlamError`: the state that Prefect logs next has its message."""
    return not (record.exc_info and isinstance(record.exc_info[1], SlamError))
