"""What a flow settles with the folder it works in before it starts."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.runtime import flow_run

from slam.errors import SlamError
from slam.files import locked
from slam.registry.record import tracking_uri
from slam.registry.server import require_answer

LOCK = Path(".slam/flow.lock")


def ready() -> None:
    """Raises `SlamError` when MLflow's server, which a flow needs at its end, does not answer now.

    From here on a `SlamError` is logged as its message alone, and a worker that dies takes this process with it.
    """
    if "PREFECT__WORKER_NAME" in os.environ:
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    for runs in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(runs).addFilter(is_no_mistake)
    if tracking_uri(Path()).startswith("http"):
        require_answer("MLFLOW_TRACKING_URI", tracking_uri(Path()))


@contextmanager
def taken() -> Iterator[None]:
    """This folder for one flow at a time: raises `SlamError` naming the run that has it.

    DVC would refuse a second build too, but stage by stage, and it knows nothing of evaluations. The lock goes with
    its process: a run that was killed leaves none.
    """
    holder = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    with locked(LOCK, f"flow works in {Path.cwd()} ({holder})"):
        LOCK.write_text(f"{flow_run.flow_name}, run {flow_run.name}", encoding="utf-8")
        yield


def end_with(parent: int) -> None:
    """SIGTERM to this process, which then tells its state and stops its stage, once `parent` is gone: a run that nobody
    watches cannot be cancelled."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def is_no_mistake(record: logging.LogRecord) -> bool:
    """False for the traceback of a `SlamError`: the state that Prefect logs next has its message."""
    return not (record.exc_info and isinstance(record.exc_info[1], SlamError))
