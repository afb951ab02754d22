"""A training of seconds, to be disturbed: what it is when nothing disturbs it, and what is to be the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from slam.training import checkpoint
from slam.training.journal import read_journal
from tests.faults.children import start, train

OWN = ("time", "samples_per_second")  # of a line of the journal: its own in each run
PATIENCE = 120  # seconds for a training of seconds


class End(NamedTuple):
    code: int | None
    said: str


class Result(NamedTuple):
    """What a run leaves that must not depend on what happened to it."""

    files: dict[str, bytes]  # of the last checkpoint: weights, averages, optimizer
    journal: list[dict]


def begin(folder: Path, fault: Callable[[], None] | None = None):
    return start(train, folder, folder / "said", fault)


def end(folder: Path, child) -> End:
    child.join(PATIENCE)
    said = (folder / "said").read_text(errors="replace") if (folder / "said").exists() else ""
    (folder / "said").unlink(missing_ok=True)
    assert child.exitcode is not None, f"still running after {PATIENCE} s: {said}"
    return End(child.exitcode, said)


def run(folder: Path, fault: Callable[[], None] | None = None) -> End:
    """Starts or goes on with the training in `folder`, to its end."""
    return end(folder, begin(folder, fault))


def result(folder: Path) -> Result:
    last = checkpoint.checkpoints(folder / "checkpoints")[-1]
    files = {path.name: path.read_bytes() for path in last.iterdir() if path.suffix == ".safetensors"}
    lines = [
        {key: value for key, value in line.items() if key not in OWN} for line in read_journal(folder / "journal.jsonl")
    ]
    return Result({**files, "step": last.name.encode()}, lines)


def copy(source: Path, folder: Path) -> Path:
    return shutil.copytree(source, folder, symlinks=True)
