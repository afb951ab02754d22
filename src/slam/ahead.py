"""Work done in threads before its result is asked for, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Item], Made],
    items: Iterable[Item],
    depth: int,
    threads: int = 1,
    begin: Callable[[], object] | None = None,
) -> Iterator[Made]:
    """`make(item)` for each of `items`, in their order, at most `depth` of them made before they are asked for; each
    thread calls `begin` first.

    An exception of `make` is raised where its result would have come. When the iterator is closed or fails, what was
    begun is waited for and nothing new is begun: no thread outlives it. `items` is read in the caller's thread.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead", initializer=begin) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
