"""A stage of dvc.yaml as a Prefect task: a child process whose lines are the run's log."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import Progress
from slam.config import load
from slam.errors import SlamError
from slam.launch import run

LAST_LINES = 12  # of a stage, kept in case it fails
DVC_HINTS = re.compile(
    r"(Generating|Updating) lock file|Use `dvc push`|To (track|enable auto) |\s+git add|\s+dvc config "
)


# No cache of Prefect's: what a stage makes is files, and DVC alone knows whether they are there and up to date.
@task(task_run_name="{name}", cache_policy=NO_CACHE)
def build(name: str) -> None:
    """`dvc repro` of this one stage. Raises `SlamError` with the stage's last words when it fails."""
    grace = load().train.grace + 5  # more than the stage has for its own children
    if last := child([sys.executable, "-m", "dvc", "repro", "--single-item", name], name, grace):
        raise SlamError(f"stage {name} failed\n{own_words(last)}")


def child(command: list[str], name: str, grace: float | None = None) -> list[str]:
    """Runs `command`: its lines become this task's log, its progress bars the run's artifact; `grace`: see `run`.

    Returns [] when it ends well, its last lines when it fails.
    """
    log, last, progress = get_run_logger(), deque(["it ended without a word"], maxlen=LAST_LINES), Progress(name)

    def on_line(line: str) -> None:
        if not DVC_HINTS.match(line):
            log.info("%s", line)
            last.append(line)
            progress.read(line)

    commands = Path(sys.executable).parent  # holds the `slam` that dvc.yaml calls, whether or not PATH says so
    env = {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    if run(command, on_line, env, grace):
        return list(last)
    progress.done()
    return []


def own_words(lines: Iterable[str]) -> str:
    """Of the last lines of `dvc repro`, the stage's own: after DVC's echo of the command, before DVC's own report."""
    said: list[str] = []
    for line in lines:
        if line.startswith("> "):
            said.clear()
        elif line.startswith("ERROR: failed to reproduce") and said:
            break
        else:
            said.append(line)
    return "\n".join(said)
