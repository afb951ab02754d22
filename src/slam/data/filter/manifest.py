"""The filter's two lists, shard by shard: manifest.parquet, what stays, and rejected.parquet, what goes and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.files import whole_file

MANIFEST = pa.schema(
    [("shard", pa.int32()), ("key", pa.string()), ("caption", pa.string()), ("width", pa.int32())]
    + [("height", pa.int32()), ("aesthetic", pa.float32()), ("sha256", pa.string()), ("split", pa.string())]
    + [("member", pa.string()), ("offset", pa.int64())]  # where the source holds the picture
    + [("url", pa.string())]
)
REJECTED = pa.schema([("shard", pa.int32()), ("key", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
PIECE = 2**19  # rows of the manifest that are written, and validated, at a time: a row group


def write_lists(
    folder: Path,
    shards: Iterable[tuple[Path, Path, pa.Table]],
    held_out: tuple[int, int] | None,
) -> tuple[list[int], int]:
    """Write both into `folder`, in the order of (shard, key); returns the rows of each row group of the manifest, which
    are PIECE at most, and how many are rejected.

    `shards`: for each, its passed.parquet, its rejected.parquet and which of the passed rows go (row, reason, detail).
    Rows with an identity up to `held_out` are kept from training: a picture's own hash decides, so the same picture
    stays on its side when data is added, under whatever key.
    """
    with ExitStack() as stack:
        kept, gone = (
            stack.enter_context(_writer(stack.enter_context(whole_file(folder / name)), schema))
            for name, schema in (("manifest.parquet", MANIFEST), ("rejected.parquet", REJECTED))
        )
        sizes = []
        for piece in _pieces(_survivors(shards, held_out, gone)):
            kept.write_table(piece)
            sizes.append(len(piece))
    return sizes, pq.read_metadata(folder / "rejected.parquet").num_rows


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    few = [name for name in ("shard", "split", "reason") if name in schema.names]  # of few values
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=few)


def _survivors(
    shards: Iterable[tuple[Path, Path, pa.Table]], held_out: tuple[int, int] | None, gone: pq.ParquetWriter
) -> Iterator[pa.Table]:
    """The survivors of each shard, as MANIFEST; writes its rejected rows to `gone` on the way."""
    for number, (passed, rejected, repeats) in enumerate(shards):
        rows = pq.read_table(passed)
        told = repeats.drop_columns("row").add_column(0, "key", rows["key"].take(repeats["row"]))
        told = pa.concat_tables([pq.read_table(rejected), told], promote_options="permissive").sort_by("key")
        gone.write_table(_numbered(told, number).cast(REJECTED))
        stays = np.ones(len(rows), dtype=bool)
        stays[repeats["row"].to_numpy()] = False
        rows = rows.filter(pa.array(stays))
        yield (
            _numbered(rows.append_column("split", splits(rows, held_out)), number).select(MANIFEST.names).cast(MANIFEST)
        )


def _numbered(rows: pa.Table, number: int) -> pa.Table:
    return rows.add_column(0, "shard", pa.array(np.full(len(rows), number, dtype=np.int32)))


def splits(rows: pa.Table, held_out: tuple[int, int] | None) -> pa.Array:
    """validation or train, for each row."""
    if held_out is None:
        return pa.array(["train"] * len(rows), pa.string())
    high, low = (rows[word].to_numpy() for word in ("high", "low"))
    held = (high < held_out[0]) | ((high == held_out[0]) & (low <= held_out[1]))
    return pc.if_else(pa.array(held), "validation", "train")


def _pieces(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, PIECE at a time."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= PIECE:
            joined = pa.concat_tables(waiting)
            whole = len(joined) // PIECE * PIECE
            for start in range(0, whole, PIECE):
                yield joined.slice(start, PIECE)
            waiting = [joined.slice(whole)]
    rest = pa.concat_tables(waiting) if waiting else MANIFEST.empty_table()
    if len(rest):
        yield rest
