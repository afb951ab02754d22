"""One run on a folder at a time, also when its `slam train` was killed and what it started is not."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from slam.files import locked


def first_process() -> bool:
    """Of those that a launcher started, the one that writes and speaks. True without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def alone(folder: Path) -> AbstractContextManager:
    """The lock of the process that writes; for the others nothing. Raises `SlamError` where another holds it.

    `slam train` has a lock of its own, which goes with it. What is left of one that was killed is told to stop, and
    may be writing its last checkpoint yet.
    """
    if not first_process():
        return nullcontext()
    return locked(folder / "loop.lock", f"`slam train` is running on {folder}, or what it left is still stopping")
