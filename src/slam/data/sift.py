"""One shard of the filter: its rows are validated, each gets a reason to go or passes; a pure function of the shard.

What it finds is written to the folder of parts, for the step over all shards and for a run that goes on after a kill:
NNNNN.passed.parquet, NNNNN.rejected.parquet, NNNNN.html (Data Docs) and, last, NNNNN.json.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.config import Filter
from slam.data import histograms
from slam.data.expectations import Suite, check
from slam.data.limits import REASONS, STAYS, aspect, rejected, values, verdicts
from slam.data.records import DOWNLOAD, SUCCESS, Shard, read_records
from slam.data.repeats import SHARD
from slam.errors import SlamError
from slam.files import read_json, whole_file, write_json

DIGITS = 5  # of a shard's number
PASSED = ("key", "caption", "width", "height", "aesthetic", "sha256", "member", "offset", "url")


class Task(NamedTuple):
    """All that the work on one shard depends on."""

    number: int  # of the shard in its source
    shard: Shard
    config: Filter
    suite: Suite  # rows
    parts: Path


def part(parts: Path, number: int, what: str) -> Path:
    """Where a shard's part is: `what` is passed.parquet, rejected.parquet, html or json."""
    return parts / f"{number:0{DIGITS}d}.{what}"


def sift(task: Task) -> dict[str, Any]:
    """Write the shard's parts; returns what its JSON holds."""
    number, shard, config, suite, parts = task
    rows = read_records(shard, phash=compares(config))
    outcome = check("rows", suite, shard.name, rows.append_column("aspect", aspect(rows)), "key")
    columns = values(rows)
    found = verdicts(rows["status"], columns, config.limits)
    with whole_file(part(parts, number, "html")) as partial:
        partial.write_text(outcome.page, encoding="utf-8")
    with whole_file(part(parts, number, "rejected.parquet")) as partial:
        pq.write_table(rejected(rows, columns, found, config.limits), partial, compression="zstd")
    with whole_file(part(parts, number, "passed.parquet")) as partial:
        pq.write_table(passed(rows.filter(pa.array(found == STAYS)), number, config), partial, compression="zstd")
    codes = np.bincount(found[found != STAYS], minlength=len(REASONS))
    had = pc.equal(rows["status"], SUCCESS).to_numpy()
    facts = {
        "shard": shard.name,
        "rows": len(rows),
        "passed": int((found == STAYS).sum()),
        "rejected": dict(zip(REASONS, codes.tolist(), strict=True)),
        "histograms": histograms.count(columns, had, config.limits),
        "problems": outcome.problems,
        "conservation": conservation(shard, _counted(rows["status"])),
        "keys": list(pc.min_max(rows["key"]).as_py().values()),
    }
    write_json(part(parts, number, "json"), facts)
    return facts


def compares(config: Filter) -> bool:
    """Whether perceptual hashes are needed."""
    return config.near_duplicates is not None or config.decontaminate is not None


def passed(rows: pa.Table, number: int, config: Filter) -> pa.Table:
    """The columns that the manifest and the step over all shards need, in the order of the keys."""
    keys = rows["key"].combine_chunks()
    if not pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        rows = rows.take(pc.sort_indices(keys))
    identity = identities(rows, number)
    columns = {name: rows[name] for name in PASSED} | {
        "caption": pc.fill_null(rows["caption"], ""),  # of a row that may lack one; no caption is the empty one
        "place": pa.array((number << SHARD) + np.arange(len(rows))),
        "high": pa.array(identity[:, 0]),
        "low": pa.array(identity[:, 1]),
    }
    return pa.table(columns | ({"phash": rows["phash"]} if compares(config) else {}))


def identities(rows: pa.Table, number: int) -> np.ndarray:
    """uint64 [N, 2]: the first 128 bits of each picture's sha256, else of its URL's, else of its shard's and key's."""
    whole = pc.fill_null(pc.equal(pc.utf8_length(rows["sha256"]), 64), False).to_numpy()
    found = np.empty((len(rows), 2), dtype=np.uint64)
    digits = "".join(rows["sha256"].filter(pa.array(whole)).to_pylist())
    try:
        found[whole] = _words(bytes.fromhex(digits))[:, :2]
    except ValueError:  # no hexadecimal digits: the suite says so
        whole = np.zeros(len(rows), dtype=bool)
    rest = rows.filter(pa.array(~whole))
    names = pc.coalesce(rest["url"], pc.binary_join_element_wise(str(number), rest["key"], "\n")).cast(pa.binary())
    found[~whole] = _words(b"".join(hashlib.sha256(name.as_buffer()).digest() for name in names))[:, :2]
    return found


def _words(digests: bytes) -> np.ndarray:
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 4)


def conservation(shard: Shard, status: dict[str, int]) -> dict[str, Any]:
    """How many were asked for and had by the rows, and by the downloader's statistics; of the latter None if unknown.

    Nor are they asked where nothing is left but rows that say what is wrong with the files.
    """
    rows, lost = sum(status.values()), {name: status.get(name, 0) for name in DOWNLOAD}
    wanted, stats, note = ("count", "successes", *DOWNLOAD), None, None
    if shard.stats and any(status.get(name) for name in (SUCCESS, *DOWNLOAD)):
        try:
            stats = read_json(shard.stats, "img2dataset")
        except SlamError as error:
            note = str(error)
        else:
            if not isinstance(stats, dict) or not all(type(stats.get(name)) is int for name in wanted):
                note = f"{shard.stats}: expected the numbers {', '.join(wanted)}, found {str(stats)[:200]}"
    told = dict.fromkeys(wanted) if note or not stats else stats
    return {
        "rows": rows,
        "downloaded": rows - sum(lost.values()),
        **lost,
        **{f"{name} in stats": told[name] for name in wanted},
        "note": note,
    }


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in pc.value_counts(column).to_pylist()}
