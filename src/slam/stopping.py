"""Processes are asked to end, given time for it, and killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

GRACE = 30.0  # seconds between SIGTERM and SIGKILL where none are given; for a training run `train.grace` gives them


def stop_tree(leader: psutil.Process, grace: float = GRACE) -> None:
    """SIGTERM to the group that `leader` leads, SIGKILL after `grace` seconds to what remains of its whole tree."""
    # Descendants too: torchrun gives each worker a session of its own, and passes SIGTERM on to it.
    tree = [leader, *leader.children(recursive=True)]
    _signal_group(leader.pid, signal.SIGTERM)
    try:
        _wait_and_kill(tree, grace)
    finally:
        _signal_group(leader.pid, signal.SIGKILL)


def stop_all(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM to each, SIGKILL after `grace` seconds."""
    _each(processes, psutil.Process.terminate)
    _wait_and_kill(processes, grace)


def _wait_and_kill(processes: list[psutil.Process], grace: float) -> None:
    """Those that have not ended after `grace` seconds are killed, and that is told."""
    began = time.monotonic()
    try:
        psutil.wait_procs(processes, timeout=grace)
    finally:  # also when a second Ctrl-C cuts the wait short
        left = [process for process in processes if _runs(process)]
        _each(left, psutil.Process.kill)
        if left:
            _tell(len(left), time.monotonic() - began)


def _tell(number: int, seconds: float) -> None:
    with suppress(OSError):  # the same Ctrl-C may have ended what reads standard error
        print(
            f"killed {number} process{'es' * (number > 1)} still running {seconds:.0f} s after SIGTERM: "
            "what they had not finished is not there; what was complete before, as the newest checkpoint, is",
            file=sys.stderr,
        )


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS answers "not permitted" for a group of zombies
        os.killpg(group, number)
