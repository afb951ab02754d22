"""Where trying again helps: the registry's server or the network. A mistake, or a bug in a stage, is never retried."""

from __future__ import annotations

from typing import Any

from slam.registry.server import is_transient


def passes(task: Any, task_run: Any, state: Any) -> bool:
    """Whether what failed may pass by itself."""
    return is_transient(state.result(raise_on_failure=False))


# Of a task that talks to the registry, as `@task(**REGISTRY)`. MLflow's client has by then tried for minutes itself.
REGISTRY = {"retries": 3, "retry_delay_seconds": [5, 30, 120], "retry_condition_fn": passes}
