"""What can only be seen over all shards: the removal list, the evaluation's pictures, duplicates, near duplicates.

In DuckDB, which goes to the disk for what its memory does not hold. A row is known by its place, (number of the
shard) << 32 | (row of the shard's file of passed rows), so places are in the order of (shard, key). Its picture is
known by the first 128 bits of its sha256 (columns high, low), of its URL's where it has none.

In this order: removal, evaluation, duplicate, near duplicate. Whatever has the identity of a listed row goes with it.
"""

from __future__ import annotations

import errno
import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from slam.config import Filter
from slam.data.filter.limits import DUPLICATE, EVALUATION, NEAR, OVER_ALL, REMOVAL
from slam.data.filter.lists import Evaluation
from slam.data.filter.near import NOWHERE, leaders, near
from slam.errors import SlamError

MEMORY = "1GB"  # DuckDB's; near duplicates hold 16 bytes more of each distinct picture, and a band's 24
THREADS = 2
SHARD = 32  # bits to the left of the row

Database = duckdb.DuckDBPyConnection
FULL = ("No space left", "File too large", "failed to offload")  # DuckDB's words


@contextmanager
def database(folder: Path, files: list[Path]) -> Iterator[Database]:
    """A database whose `rows` are those of `files`. What its memory cannot hold is in `folder` until it is closed.

    Raises `OSError` (ENOSPC) if it finds no room there.
    """
    work = folder / "duckdb"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir()
    settings = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": str(work / "spilled")}
    names = ", ".join("'" + glob.escape(str(file)).replace("'", "''") + "'" for file in files)
    try:
        with duckdb.connect(str(work / "filter.duckdb"), config=settings) as db:
            db.execute("SET preserve_insertion_order = false")
            db.execute(
                f"CREATE VIEW rows AS SELECT * FROM read_parquet([{names}], filename = true, union_by_name = true)"
            )
            db.execute("CREATE TABLE gone (place BIGINT, reason VARCHAR, first BIGINT, detail VARCHAR)")
            yield db
    except duckdb.Error as error:
        if any(words in str(error) for words in FULL):
            raise OSError(errno.ENOSPC, str(error)) from None
        raise
    shutil.rmtree(work)


def find(db: Database, config: Filter, listed: pa.Array, shown: Evaluation | None) -> None:
    """Fill `gone`: each place once, with its reason; `first`, of a duplicate, is the place of the row that stays."""
    if len(listed):
        _remove(db, listed)
    if shown is not None:
        _decontaminate(db, shown, config.near_duplicates or 0)
    if config.duplicates:
        _same(db)
    if config.near_duplicates is not None:
        _alike(db, config.near_duplicates)


def _remove(db: Database, listed: pa.Array) -> None:
    db.register("names", pa.table({"name": listed}))
    db.execute(
        f"""CREATE TEMP TABLE bad AS SELECT DISTINCT high, low FROM rows
            WHERE url IN (SELECT name FROM names) OR sha256 IN (SELECT name FROM names);
            INSERT INTO gone SELECT place, '{REMOVAL}', NULL, NULL FROM rows SEMI JOIN bad USING (high, low)"""
    )


def _decontaminate(db: Database, shown: Evaluation, radius: int) -> None:
    hashes = _distinct(db)
    found = near(hashes, np.unique(shown.phash), radius)
    db.register("hits", pa.table({"phash": hashes[found != NOWHERE]}))
    db.register("digests", pa.table({"sha256": shown.sha256}))
    db.execute(
        f"""INSERT INTO gone SELECT place, '{EVALUATION}', NULL, NULL FROM rows ANTI JOIN gone USING (place)
            WHERE phash IN (SELECT phash FROM hits) OR sha256 IN (SELECT sha256 FROM digests)"""
    )


def _same(db: Database) -> None:
    db.execute(
        f"""CREATE TEMP TABLE groups AS SELECT high, low, min(place) AS first
            FROM rows ANTI JOIN gone USING (place) GROUP BY high, low HAVING count(*) > 1;
            INSERT INTO gone SELECT place, '{DUPLICATE}', first, NULL
            FROM rows JOIN groups USING (high, low) ANTI JOIN gone USING (place) WHERE place > first"""
    )


def _alike(db: Database, radius: int) -> None:
    hashes = _distinct(db)
    stays = hashes[leaders(hashes, radius)]
    db.register("pairs", pa.table({"phash": hashes, "stays": stays, "bits": np.bitwise_count(hashes ^ stays)}))
    db.execute(
        f"""CREATE TEMP TABLE firsts AS SELECT phash, min(place) AS first
            FROM rows ANTI JOIN gone USING (place) GROUP BY phash;
            INSERT INTO gone SELECT place, '{NEAR}', firsts.first, bits || ' of 64 bits differ'
            FROM rows ANTI JOIN gone USING (place) JOIN pairs USING (phash) JOIN firsts ON stays = firsts.phash
            WHERE place > firsts.first"""
    )


def _distinct(db: Database) -> np.ndarray:
    """uint64, the perceptual hashes of the rows that are left, each once, in the order of their first places."""
    without, example = db.execute("SELECT count(*), min(key) FROM rows WHERE phash IS NULL").fetchall()[0]
    if without:
        raise SlamError(
            f"filter.near_duplicates, filter.decontaminate: expected pictures to compare, {without} rows have none, "
            f"e.g. key {example}: download the pictures first, or set both to null"
        )
    return db.execute(
        "SELECT phash FROM rows ANTI JOIN gone USING (place) GROUP BY phash ORDER BY min(place)"
    ).fetchnumpy()["phash"]


def counted(db: Database) -> dict[str, int]:
    """Rows for each reason of OVER_ALL."""
    found = dict(db.execute("SELECT reason, count(*) FROM gone GROUP BY reason").fetchall())
    return {reason: found.get(reason, 0) for reason in OVER_ALL}


def last_held_out(db: Database, validation: int) -> tuple[int, int] | None:
    """(high, low) of the `validation`-th smallest identity that is left; None if there are fewer."""
    found = db.execute(
        "SELECT high, low FROM rows ANTI JOIN gone USING (place) ORDER BY high, low LIMIT 1 OFFSET $1", [validation - 1]
    ).fetchall()
    return found[0] if found else None


def name_firsts(db: Database) -> None:
    """Say in `detail` of which row a row is the duplicate, and put `gone` in the order of its places."""
    db.execute(
        f"""CREATE TEMP TABLE named AS SELECT place, key FROM rows SEMI JOIN gone ON rows.place = gone.first;
            CREATE TABLE told AS SELECT gone.place, reason, CASE WHEN first IS NULL THEN detail ELSE concat_ws(', ',
              'of shard ' || (first >> {SHARD}) || ', key ' || key, detail) END AS detail
            FROM gone LEFT JOIN named ON gone.first = named.place ORDER BY gone.place"""
    )


def gone(db: Database, number: int) -> pa.Table:
    """row, reason, detail of the rows of shard `number` that go, in the order of the rows."""
    start, end = number << SHARD, (number + 1) << SHARD
    return db.sql(
        f"""SELECT (place - {start})::BIGINT AS row, reason, detail FROM told
            WHERE place >= {start} AND place < {end} ORDER BY place"""
    ).to_arrow_table()


def shared_keys(db: Database) -> dict[int, str]:
    """Number of a shard -> how many of its keys another one of `files` has too, and the first of them."""
    found = db.execute(
        """WITH named AS (SELECT key, split_part(parse_filename(filename), '.', 1)::INT AS number FROM rows),
             shared AS (SELECT key FROM named GROUP BY key HAVING count(DISTINCT number) > 1)
           SELECT number, count(*), min(key, 3)
           FROM (SELECT DISTINCT number, key FROM named SEMI JOIN shared USING (key)) GROUP BY number"""
    ).fetchall()
    return {n: f"{count}: {', '.join(few)}{', …' if count > len(few) else ''}" for n, count, few in found}
