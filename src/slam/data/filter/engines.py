"""Where the shards are worked on: in this process, in several here, or on a Dask cluster. The only door to Dask.

Each engine is a context whose value maps a function over items and yields the results as they come, in any order.
What the function writes must be seen by this process: workers on other machines need the same file system.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import forkserver
from typing import Any

from slam.errors import SlamError

Job = Callable[[], Any]
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def serial(processes: int, scheduler: str | None) -> Iterator[Map]:
    yield map


@contextmanager
def processes(processes: int, scheduler: str | None) -> Iterator[Map]:
    """Forks of a fresh process: of this one they would inherit the threads of Arrow and DuckDB without their running.

    It imports Great Expectations, which takes seconds, once for all of them, and while this process goes on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "slam.data.filter.sift", "slam.data.validation.expectations"])
    forkserver.ensure_running()
    pool = ProcessPoolExecutor(processes, context, _end_with_parent)

    def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return results([pool.submit(function, item) for item in items])  # begun before the first is asked for

    def results(futures: list[Future]) -> Iterator[Any]:
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise SlamError(
                "a process of the filter was killed, for want of memory perhaps: the same command goes on from here; "
                "with --processes 1 it needs the least memory"
            ) from None

    try:
        yield run
    finally:  # after an error or Ctrl-C, what has not begun is not begun
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever, and hold its memory."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def dask(processes: int, scheduler: str | None) -> Iterator[Map]:
    """The cluster at `scheduler` (tcp://HOST:8786), else one of `processes` workers on this machine."""
    try:
        import distributed
    except ImportError:
        raise SlamError("--engine dask needs Dask: pip install 'slam[dask]'") from None
    local = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None}
    with _environment_kept(), _connected(scheduler) if scheduler else distributed.Client(**local) as client:

        def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            futures = client.map(function, list(items), pure=False)
            for _, result in distributed.as_completed(futures, with_results=True):
                yield result

        yield run


def _connected(scheduler: str) -> Any:
    import distributed

    try:
        return distributed.Client(scheduler)
    except (OSError, ValueError) as error:
        raise SlamError(f"--scheduler {scheduler}: expected a Dask scheduler, tcp://HOST:8786, found {error}") from None


@contextmanager
def _environment_kept() -> Iterator[None]:
    """A cluster of this machine leaves OMP_NUM_THREADS = 1 and the like to whatever this process starts later."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def begin(run: Map, jobs: dict[str, Job]) -> Callable[[], dict[str, Any]]:
    """What waits for the jobs, which an engine of several processes begins at once: what each returns by its name."""
    found = run(_job, jobs.items())
    return lambda: dict(found)


def _job(named: tuple[str, Job]) -> tuple[str, Any]:
    return named[0], named[1]()


ENGINES: dict[str, Callable[[int, str | None], AbstractContextManager[Map]]] = {
    "serial": serial,
    "processes": processes,
    "dask": dask,
}
