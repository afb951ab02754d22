"""Runs whose process is gone without a word: `make up` has Prefect call them crashed (`python -m flows.dead_runs`).

As long as one is believed to be running, it keeps its place in the queue of the GPU.
"""

from __future__ import annotations

from datetime import timedelta

import psutil
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.events.actions import ChangeFlowRunState
from prefect.states import Crashed

from flows.services import POOL

SILENCE = 90  # seconds; three heartbeats, as often as prefect.toml has them
ENDS = ("Completed", "Drifted", "Failed", "TimedOut", "Cancelled", "Crashed")  # the names of final states


def watch(silence: float = SILENCE) -> AutomationCore:
    """Calls a run crashed after `silence` seconds without a heartbeat: its process, or its machine, is gone."""
    return AutomationCore(
        name="slam: a run without heartbeat has crashed",
        description=f"No heartbeat for {silence:g} seconds.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{name}" for name in ("heartbeat", *ENDS)},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
        ),
        actions=[ChangeFlowRunState(state="CRASHED", message=f"No heartbeat for {silence:g} seconds")],
    )


def settle(automation: AutomationCore) -> None:
    """Puts `automation` on the server. One that is there already stays: it knows who was alive before a restart."""
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(automation.name)
        if any(_said(one) == _said(automation) for one in known):
            return
        for old in known:
            client.delete_automation(old.id)
        client.create_automation(automation)


def _said(automation: AutomationCore) -> dict:
    said = automation.model_dump(include={"enabled", "actions", "trigger"})
    return {**said, "trigger": {key: value for key, value in said["trigger"].items() if key != "id"}}


def bury() -> list[str]:
    """Calls the runs of this machine's pool crashed whose process is not here; returns their names.

    For when the worker starts: after a reboot there is nobody to miss a heartbeat.
    """
    of_pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}})
    with get_client(sync_client=True) as client:
        gone = [
            run
            for run in client.read_flow_runs(flow_run_filter=unfinished, work_pool_filter=of_pool)
            if not _runs_a_flow(run.infrastructure_pid)
        ]
        for run in gone:
            client.set_flow_run_state(run.id, Crashed(message="Its process was gone when `make up` looked"), force=True)
    return [run.name for run in gone]


def _runs_a_flow(pid: str | None) -> bool:
    try:
        return "prefect.engine" in psutil.Process(int(pid or 0)).cmdline()
    except (psutil.Error, ValueError):
        return False


if __name__ == "__main__":
    settle(watch())
    for name in bury():
        print(f"the run {name} has crashed: its process is gone")
