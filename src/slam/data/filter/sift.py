"""One shard of the filter: its rows are validated, each gets a reason to go or passes; a pure function of the shard.

What it finds is written to the folder of parts, for the step over all shards and for a run that goes on after a kill:
NNNNN.passed.parquet, NNNNN.rejected.parquet, NNNNN.html (Data Docs) and, last, NNNNN.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.config import Filter
from slam.data.filter import histograms
from slam.data.filter.conservation import conservation
from slam.data.filter.limits import REASONS, STAYS, aspect, rejected, values, verdicts
from slam.data.filter.repeats import SHARD
from slam.data.records import SUCCESS, Shard, read_records
from slam.data.scores import with_scores
from slam.data.validation.suites import Suite
from slam.files import whole_file, write_json

PASSED, REJECTED, PAGE, FACTS = "passed.parquet", "rejected.parquet", "html", "json"
CHUNK = 2**16  # rows that become Python objects at a time
DIGITS = 5  # of a shard's number
COLUMNS = ("key", "caption", "width", "height", "aesthetic", "sha256", "member", "offset", "url")


class Task(NamedTuple):
    """All that the work on one shard depends on."""

    number: int  # of the shard in its source
    shard: Shard
    config: Filter
    suite: Suite  # rows
    parts: Path
    scores: Path | None = None  # what `slam score` left, if it is used


def part(parts: Path, number: int, what: str) -> Path:
    """Where a shard's part is: `what` is PASSED, REJECTED, PAGE or FACTS."""
    return parts / f"{number:0{DIGITS}d}.{what}"


def sift(task: Task) -> dict[str, Any]:
    """Write the shard's parts; returns what its JSON holds."""
    from slam.data.validation.expectations import check

    number, shard, config, suite, parts, scores = task
    rows = read_records(shard, phash=compares(config))
    if scores:
        rows = with_scores(rows, shard.name, scores)
    outcome = check("rows", suite, shard.name, rows.append_column("aspect", aspect(rows)), "key")
    columns = values(rows)
    found = verdicts(rows["status"], columns, config.limits)
    with whole_file(part(parts, number, PAGE)) as partial:
        partial.write_text(outcome.page, encoding="utf-8")
    with whole_file(part(parts, number, REJECTED)) as partial:
        pq.write_table(rejected(rows, columns, found, config.limits), partial, compression="zstd")
    with whole_file(part(parts, number, PASSED)) as partial:
        pq.write_table(passed(rows.filter(pa.array(found == STAYS)), number, config), partial, compression="zstd")
    codes = np.bincount(found[found != STAYS], minlength=len(REASONS))
    had = pc.equal(rows["status"], SUCCESS).to_numpy()
    facts = {
        "number": number,
        "passed": int((found == STAYS).sum()),
        "rejected": dict(zip(REASONS, codes.tolist(), strict=True)),
        "histograms": histograms.count(columns, had, config.limits),
        "problems": outcome.problems,
        "keys": list(pc.min_max(rows["key"]).as_py().values()),
    }
    facts["conservation"] = conservation(shard, _counted(rows["status"]), facts["passed"] + int(codes.sum()))
    write_json(part(parts, number, FACTS), facts)
    del rows, columns
    pa.default_memory_pool().release_unused()  # for the shard after this
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
    columns = {name: rows[name] for name in COLUMNS} | {
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
        found[whole] = _words(bytes.fromhex(digits), 4)[:, :2]
    except ValueError:  # no hexadecimal digits: the suite says so
        whole = np.zeros(len(rows), dtype=bool)
    rest = rows.filter(pa.array(~whole))
    own = pc.binary_join_element_wise(str(number), rest["key"], "\n")
    names = pc.coalesce(rest["url"], own).cast(pa.binary())
    digests = [hashlib.sha256(n).digest()[:16] for chunk in _chunks(names) for n in chunk.to_numpy()]
    found[~whole] = _words(b"".join(digests), 2)
    return found


def _chunks(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    for start in range(0, len(column), CHUNK):
        yield column.slice(start, CHUNK)


def _words(digests: bytes, each: int) -> np.ndarray:
    """uint64 [N, each], big-endian, so that they are in the order of the digits."""
    return np.frombuffer(digests, dtype=">u8").reshape(-1, each)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in pc.value_counts(column).to_pylist()}
