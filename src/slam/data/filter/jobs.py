"""What an engine does beside the shards. Each job imports what it needs where it is done: the process that asks for it
need not wait for Great Expectations and Matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from slam.config_data import Limits
from slam.data.validation.suites import Outcome, Suite


class Check(NamedTuple):
    """One table, and all that its validation depends on."""

    asset: str
    suite: str
    expected: Suite
    parquet: Path
    group: int  # of its row groups, which is the table
    index: str  # the column that names a row


def checked(task: Check) -> Outcome:
    from slam.data.validation.expectations import check

    with pq.ParquetFile(task.parquet) as file:
        table = file.read_row_group(task.group)
    return check(task.suite, task.expected, task.asset, table, task.index)


def described(suites: dict[str, Suite]) -> dict[str, str]:
    """A page, HTML, of each."""
    from slam.data.validation.expectations import describe

    return {name: describe(name, suite) for name, suite in suites.items()}


def drawn(counts: dict[str, dict[str, Any]], limits: Limits, path: Path) -> None:
    from slam.data.filter.picture import draw

    draw(counts, limits, path)
