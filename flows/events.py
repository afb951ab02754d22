"""What the flows tell Prefect's automations. Their resource is the registered model."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

PROMOTED = "slam.champion.promoted"  # {"version"}: the alias champion has moved to it; prefect.yaml has it measured
DRIFTED = "slam.champion.drifted"  # {"version", "drifts": [one line each]}
ROLLED_BACK = "slam.champion.rolled-back"  # {"version", "from"}: champion is the former one again

MODEL = {"prefect.resource.id": "slam.model.slam", "prefect.resource.name": "slam"}


def emit(event: str, **payload: Any) -> None:
    emit_event(event, resource=MODEL, payload=payload)
