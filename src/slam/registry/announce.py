"""Tells Prefect's server, where there is one, what befell the registered model; its automations act on that.

The flows tell it through Prefect itself. A command must not wait for the import of Prefect, nor need it, to say one
sentence: it posts the same event.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

PROMOTED = "slam.champion.promoted"  # {"version"}: the alias champion has moved to it; prefect.yaml has it measured
DRIFTED = "slam.champion.drifted"  # {"version", "drifts": [one line each]}
ROLLED_BACK = "slam.champion.rolled-back"  # {"version", "from"}: champion is the former one again

MODEL = {"prefect.resource.id": "slam.model.slam", "prefect.resource.name": "slam"}


def announce(event: str, **payload: Any) -> str | None:
    """Posts `event` to the server that PREFECT_API_URL names; returns what the user should know if nobody heard it."""
    server = os.environ.get("PREFECT_API_URL")
    if not server:
        return None
    told = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event, "resource": MODEL}
    headers = {"Content-Type": "application/json"}
    if known := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(known.encode()).decode()}"
    try:
        body = json.dumps([told | {"payload": payload}]).encode()
        with urlopen(Request(f"{server}/events", body, headers), timeout=10):
            return None
    except HTTPError as error:
        reason = f"says {error.code} {error.reason}"
    except (OSError, ValueError) as error:  # ValueError: no URL
        reason = f"does not answer ({getattr(error, 'reason', error)})"
    return f"PREFECT_API_URL = {server} {reason}: no evaluation starts by itself; `slam evaluate --model` is one"
