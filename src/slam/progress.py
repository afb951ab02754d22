"""One progress bar for every long loop: a bar with an ETA on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm

LINE_EVERY = 5.0  # seconds between two lines where the output is no terminal (a flow's log, a file)


class _Lines:
    """A text sink for tqdm that writes each redraw of the bar as a line of its own."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(items: Iterable | None = None, label: str = "", total: int | None = None, **tqdm_arguments) -> tqdm:
    """A tqdm bar over `items` (or one to `update()` by hand), named `label`."""
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=label,
        total=total,
        file=sys.stderr if terminal else _Lines(),
        mininterval=0.2 if terminal else LINE_EVERY,
        maxinterval=1.0 if terminal else LINE_EVERY,
        ncols=None if terminal else 100,
        ascii=not terminal,
        **tqdm_arguments,
    )


def batches(count: int, size: int, label: str, quiet: bool = False) -> Iterator[slice]:
    """The slices [0, size), [size, 2 size), … that cover `count` items, under a bar that counts the items."""
    with progress(label=label, total=count, disable=quiet) as bar:
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield part
            bar.update(part.stop - part.start)
