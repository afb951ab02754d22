"""No row is lost: what each shard says of its numbers, keys that two shards share, and counts that add up."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from slam.config import Filter
from slam.data.filter.limits import REASONS
from slam.data.records import DOWNLOAD, SUCCESS, Shard
from slam.errors import SlamError
from slam.files import read_json

NONE = "none"  # no such key
STATS = ("count", "successes", *DOWNLOAD)  # numbers of img2dataset's NNNNN_stats.json
# The table of shards, which the suite `shards` is for.
SHARDS = pa.schema(
    [("shard", pa.string())]
    + [(name, pa.int64()) for name in ("rows", "passed and rejected", "downloaded", *DOWNLOAD)]
    + [(f"{name} in stats", pa.int64()) for name in STATS]
    + [("keys of another shard", pa.string())]
)


def conservation(shard: Shard, status: dict[str, int], judged: int) -> dict[str, Any]:
    """A row of the table of shards: how many were asked for and had, by the rows and by the downloader's statistics.

    `status`: rows of each status; `judged`: rows that passed or were rejected. Statistics that cannot be read are
    None, and so are those of a shard of which nothing is left but rows that say what is wrong with its files.
    """
    rows, lost = sum(status.values()), {name: status.get(name, 0) for name in DOWNLOAD}
    stats, note = None, None
    if shard.stats and any(status.get(name) for name in (SUCCESS, *DOWNLOAD)):
        try:
            stats = read_json(shard.stats, "img2dataset")
        except SlamError as error:
            note = str(error)
        else:
            if not isinstance(stats, dict) or not all(type(stats.get(name)) is int for name in STATS):
                note = f"{shard.stats}: expected the numbers {', '.join(STATS)}, found {str(stats)[:200]}"
    told = dict.fromkeys(STATS) if note or not stats else stats
    return {
        "shard": shard.name,
        "rows": rows,
        "passed and rejected": judged,
        "downloaded": rows - sum(lost.values()),
        **lost,
        **{f"{name} in stats": told[name] for name in STATS},
        "note": note,
    }


def overlapping(ranges: list[list[str | None]]) -> list[int]:
    """The places of those [least, most] that another one meets: only their shards can have keys in common."""
    order = sorted((low, high, place) for place, (low, high) in enumerate(ranges) if low is not None)
    found: set[int] = set()
    most, holder = "", None
    for low, high, place in order:
        if holder is not None and low <= most:
            found |= {place, holder}
        if holder is None or high >= most:
            most, holder = high, place
    return sorted(found)


def total(facts: list[dict[str, Any]], repeated: dict[str, int]) -> dict[str, Any]:
    """The counts: rows, rejected for each reason, survivors. `repeated`: rows that go for a reason over all shards."""
    rejected = {reason: sum(fact["rejected"].get(reason, 0) for fact in facts) for reason in REASONS} | repeated
    survivors = sum(fact["passed"] for fact in facts) - sum(repeated.values())
    rows = sum(fact["conservation"]["rows"] for fact in facts)
    assert rows == survivors + sum(rejected.values()), "every row stays or has one reason"
    return {"rows": rows, "rejected": rejected, "survivors": survivors}


def shortage(counts: dict, config: Filter) -> list[str]:
    """What to say if too few rows survive."""
    rows, survivors = counts["rows"], counts["survivors"]
    why = ", ".join(f"{reason} {count}" for reason, count in counts["rejected"].items() if count) or "none"
    if survivors < config.survivors * rows or not survivors:
        return [
            f"filter.survivors = {config.survivors}: expected at least {config.survivors:.0%} of {rows} rows to "
            f"survive, found {survivors}; rejected: {why}: loosen the limits under `filter`, or mend the data"
        ]
    if survivors <= config.validation:
        return [
            f"filter.validation = {config.validation}: expected more survivors than that, found {survivors} "
            f"of {rows} rows; rejected: {why}: lower it, or take more data"
        ]
    return []
