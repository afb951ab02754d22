"""What is written to the disk while training goes on: one job at a time, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Writer:
    """Inside its block, `start` begins a job and returns. What a job raises is raised by the next call, at the latest
    when the block ends, which waits for the job, whatever ends it."""

    def __enter__(self) -> Writer:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._running: Future | None = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    def start(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Waits for the job before; who makes large `arguments` waits before that."""
        self.wait()
        self._running = self._pool.submit(job, *arguments)

    def check(self) -> None:
        """Raises what a job that has ended raised; waits for none."""
        if self._running and self._running.done():
            self.wait()

    def wait(self) -> None:
        running, self._running = self._running, None
        if running:
            running.result()
