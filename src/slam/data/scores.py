"""What `slam score` leaves of a shard, and how it comes into the records. Light, for every process of the filter."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.data.records import BROKEN, SUCCESS
from slam.errors import SlamError

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("sha256", pa.string()),  # of the record: which picture stood at the key
        ("aesthetic", pa.float32()),
        ("detail", pa.string()),  # why the picture has no score
    ]
)


def unscored(records: pa.Table) -> pa.ChunkedArray:
    """Which of `records` (RECORD) have a picture and no score."""
    return pc.and_(pc.equal(records["status"], SUCCESS), pc.is_null(records["aesthetic"]))


def with_scores(records: pa.Table, shard: str, scores: Path) -> pa.Table:
    """`records` (RECORD) of the shard of that name, with the scores in the folder `scores` where the metadata has none.

    A picture that could not be decoded to be scored gets the status of a broken one. Raises `SlamError` when a
    picture has not been scored, or another one stood at its key when it was.
    """
    file = scores / f"{shard}.parquet"
    if not file.is_file():
        raise SlamError(f"{file} does not exist: run `slam score` first, or set `score: null` in the profile")
    table = pq.read_table(file, schema=SCORES)
    place = pc.index_in(_identity(records), value_set=_identity(table))
    wanted = unscored(records)
    absent = pc.and_(wanted, pc.is_null(place))
    if pc.any(absent).as_py():
        raise SlamError(
            f"{file}: expected a row for each picture without a score, found none for key "
            f"{records['key'].filter(absent)[0]} or for another picture there: run `slam score` again"
        )
    found = table.take(place)
    broken = pc.and_(wanted, pc.is_valid(found["detail"]))
    columns = {
        "aesthetic": pc.coalesce(records["aesthetic"], found["aesthetic"]),
        "status": pc.if_else(broken, BROKEN, records["status"]),
        "detail": pc.if_else(broken, found["detail"], records["detail"]),
    }
    for name, values in columns.items():
        records = records.set_column(records.schema.get_field_index(name), records.schema.field(name), values)
    return records


def _identity(table: pa.Table) -> pa.Array:
    """One text for the key and the picture at it."""
    texts = pc.binary_join_element_wise(table["key"], pc.fill_null(table["sha256"], ""), " ")
    return texts.combine_chunks()
