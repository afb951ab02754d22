"""What `make demo` runs: the flow if anything is stale, then the table and what to do next. Exit code 1 if it fails."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from flows import graph
from slam import paths
from slam.errors import SlamError
from slam.evaluation.report import print_table
from slam.files import read_json
from slam.registry.record import registration, tracking_uri
from slam.registry.server import require_answer

# Prefect's log lines: the time, the stage, what it says.
FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s %(task_run_name)-12s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(flow_name)-12s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(asctime)s %(message)s",
}

NEXT = """\
Runs, curves, aliases (MLflow) and flows (Prefect) in the browser:
  make up
Draw a picture:
  .venv/bin/slam generate "a large red circle on a blue background" --steps 4 --out circle.png
Do the same for Stable Diffusion, after setting where your pictures are in params.yaml, profiles.sd15.source:
  sed -i.bak 's/^profile: tiny/profile: sd15/' params.yaml && make demo"""


def main() -> None:
    record = None if graph.stale() else registration(Path())
    if record:
        print("Everything is up to date.\n")
    else:
        record = train()
    print_table(read_json(paths.METRICS, "make demo"), Console())
    print(f"\nThe same prompts and noise under each sampler:   {paths.SAMPLES}")
    print(f"Registered in MLflow:   slam version {record['version']}, alias {record['alias']}\n\n{NEXT}")


def train() -> dict:
    """Runs the flow in this process; Prefect starts a temporary server unless `make up` has started one."""
    os.environ.update({name: os.environ.get(name, text) for name, text in FORMATS.items()})
    # Prefect's word on its temporary server would otherwise be the last that the user reads.
    logging.getLogger("prefect").addFilter(lambda record: record.levelno >= logging.WARNING)
    print("Starting Prefect and the flow slam-train …", file=sys.stderr, flush=True)
    from prefect.settings import PREFECT_API_URL

    from flows.train import slam_train

    if PREFECT_API_URL.value():
        require_answer("PREFECT_API_URL", PREFECT_API_URL.value())
    if tracking_uri(Path()).startswith("http"):
        require_answer("MLFLOW_TRACKING_URI", tracking_uri(Path()))
    return slam_train()


if __name__ == "__main__":
    # Prefect passes a SIGTERM on to the handler that it found; by default that would end this process at once, and
    # the temporary server, which Prefect stops at exit, would stay.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except SlamError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
