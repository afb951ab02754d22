"""`make study`: runs what a study lacks, a variant on each core, then reports: `python -m studies.all FOLDER`.

DVC decides what is lacking. Two trainings with a thread each make more steps than one with two. Ctrl-C, SIGTERM or a
kill stops them all; the same command again goes on from their last checkpoints.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from slam.errors import SlamError
from slam.launch import cores, run, sigterm_raises, started
from slam.progress import progress
from studies.command import command
from studies.variants import load_study

REPRO = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--quiet"]
LOGS = Path("runs")


def run_all(name: str) -> None:
    """Raises `SlamError` naming the parts that failed, when all others are done and reported."""
    folder = Path(name)
    parts = [*(f"variant@{name}" for name in load_study(folder / "study.yaml").variants), "baselines"]
    if run([*REPRO, "encode"]):  # once, before two parts want to make the pictures at the same time
        raise SlamError("the pictures were not made: see above")
    failed = run_parts(folder, parts, cores())
    if run([*REPRO, "--single-item", stage(folder, "report")]):
        failed.append("report")
    if failed:
        raise SlamError(f"failed: {', '.join(failed)}; the others are done. The same command tries these again")


def run_parts(folder: Path, parts: list[str], jobs: int) -> list[str]:
    """Builds the stages `parts` of FOLDER/dvc.yaml, `jobs` at a time with a thread each; returns those that failed."""
    waiting, failed = list(parts), []
    running: dict[str, tuple[subprocess.Popen, ExitStack]] = {}
    with sigterm_raises(), progress(label="study", total=len(parts)) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    running[name] = start(folder, name)
                time.sleep(0.2)
                for name, (child, stack) in list(running.items()):
                    if child.poll() is not None:
                        stack.close()
                        del running[name]
                        bar.update()
                        if child.returncode:
                            failed.append(name)
                            bar.write(f"{name} failed: {log_of(folder, name)}", file=sys.stderr)
        finally:
            for _, stack in running.values():
                stack.close()
    return failed


def start(folder: Path, name: str) -> tuple[subprocess.Popen, ExitStack]:
    """The stage `name` under DVC, writing to its log; closing the stack stops it."""
    with ExitStack() as stack:
        log_of(folder, name).parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(log_of(folder, name).open("w", encoding="utf-8"))
        command = [*REPRO, "--single-item", stage(folder, name)]
        output = {"stdout": log, "stderr": subprocess.STDOUT}
        return stack.enter_context(started(command, {"OMP_NUM_THREADS": "1"}, **output)), stack.pop_all()


def stage(folder: Path, name: str) -> str:
    return f"{folder}/dvc.yaml:{name}"


def log_of(folder: Path, name: str) -> Path:
    return LOGS / folder / f"{name}.log"


if __name__ == "__main__":
    command(run_all, "FOLDER")
