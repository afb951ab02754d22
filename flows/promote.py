"""The gate as a task, and as a job of its own for a version that is registered already."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from flows import checkout
from flows.retries import REGISTRY
from slam.registry.announce import MODEL, PROMOTED


@task(task_run_name="promote", cache_policy=NO_CACHE, **REGISTRY)
def promote(version: str) -> str:
    """The alias that the gate gives to `version`: champion or challenger. Emits an event when the champion changes."""
    from slam.registry.promote import promote as decide

    decision, log = decide(version), get_run_logger()
    for check in decision.checks:
        log.info("%s  %s", "pass" if check.passed else "FAIL", check.says)
    log.info("version %s is %s: %s", version, decision.alias, decision.reason)
    if decision.noticed:
        log.warning("%s", decision.noticed)
    if decision.alias == "champion" and version != decision.before:
        emit_event(PROMOTED, resource=MODEL, payload={"version": version})
    return decision.alias


@flow(name="slam-promote")
def slam_promote(version: str) -> dict[str, str]:
    """Lets the gate of mlflow/promotion.yaml decide on a registered version; returns {"version", "alias"}."""
    checkout.ready()
    return {"version": version, "alias": promote(version)}
