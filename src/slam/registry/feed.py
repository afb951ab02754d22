"""Feeds MLflow from the training journal, beside the training: a process of its own that nothing waits for.

`python -m slam.registry.feed FOLDER ROOT` follows the journal in FOLDER until SIGTERM; then it sends what is left, for
at most DRAIN seconds. The tracking server may be away, or hang, for any time: the journal keeps everything, and the
next `slam train` or registration sends what is missing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slam.launch import started

POLL = 5.0  # seconds between two looks at the journal
LONGEST = 60.0  # seconds between two attempts at a server that does not answer
DRAIN = 15.0  # seconds for what is left when the training has ended; less than launch.GRACE, after which comes SIGKILL
HURRY = 3.0  # the same when the training was interrupted: whoever did so waits
ANSWER = 10  # seconds that a server has for an answer


@contextmanager
def feeding(folder: Path, root: Path = Path()) -> Iterator[None]:
    """While the block trains in `folder`, its journal goes to MLflow. No failure of that reaches the block.

    Where torchrun started this process, only the first of its ranks feeds.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    command = [sys.executable, "-m", "slam.registry.feed", str(folder), str(root)]
    # The server's silence must not become ours: MLflow's client would try for minutes.
    env = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with started(command, env) as child:
        try:
            yield
        except BaseException:
            child.send_signal(signal.SIGINT)
            raise


class Ending:
    """Inside its block: when this process was asked to end, and by when it should have."""

    def __init__(self) -> None:
        self.asked, self.deadline = threading.Event(), float("inf")

    def __enter__(self) -> Ending:
        for number, seconds in {signal.SIGTERM: DRAIN, signal.SIGINT: HURRY}.items():
            signal.signal(number, lambda *_, seconds=seconds: self.ask(seconds))
        return self

    def __exit__(self, *error: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # it is ending as it is

    def ask(self, seconds: float) -> None:
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self.asked.set()

    @property
    def overdue(self) -> bool:
        return time.monotonic() >= self.deadline


def feed(folder: Path, root: Path, ending: Ending) -> int:
    """Follows until asked to end; returns how many steps the server has not acknowledged."""
    from slam.registry.mirror import mirror_of  # MLflow: not in the process that trains

    mirror, trouble, pause, unsent = None, "", POLL, 0
    while True:
        last = ending.asked.wait(pause)  # what was written before it was asked is read below
        try:
            mirror = mirror_of(folder, root, mirror)
            unsent = mirror.read() if mirror else 0
            if unsent:
                mirror.send()
            if last and mirror and mirror.client:
                mirror.finish()
            if trouble:
                say("the server answers again; nothing is lost")
            trouble, pause, unsent = "", POLL, 0
        except Exception as error:  # whatever it is, it is the tracker's and must not be the training's
            if not trouble:
                say(f"{first_line(error)}. Training goes on; its metrics wait in {folder / 'journal.jsonl'}")
            trouble, pause = first_line(error), min(2 * pause, LONGEST)
        if last and (not trouble or ending.overdue):
            if trouble:
                say(f"{unsent} steps were not sent ({trouble}): the next `slam train` or registration sends them")
            return unsent
        if last:
            time.sleep(1)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def say(text: str) -> None:
    print(f"MLflow: {text}", file=sys.stderr, flush=True)


def main(folder: str, root: str) -> int:
    with Ending() as ending:
        os.nice(19)  # where training has every core, it keeps them
        return 1 if feed(Path(folder), Path(root), ending) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
