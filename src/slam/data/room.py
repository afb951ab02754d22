"""A full disk is told in a sentence, by every stage that writes data."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slam.errors import SlamError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def room(out: Path) -> Iterator[None]:
    """Raises `SlamError` for an error of the block that says that the disk is full; `out` is what it writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise SlamError(
            f"no room left for {out}: {error}: what was there before is as it was; make room, "
            "then the same command goes on from here"
        ) from None
