"""Parquet metadata alone, as LAION publishes it: URLs, captions, sizes and scores; no pictures yet.

The filter takes it, and its manifest then tells img2dataset what is worth downloading; there is nothing to encode.
A shard is a run of row groups of at most ROWS rows together, so that memory holds one such run. A row group is not
divided: one of more rows than that is a shard by itself.

A file whose footer cannot be read is one record, under the shard's name; where the footer can be read and its rows
cannot, each of them is a broken record. Neither stops the other shards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from slam.config import Source
from slam.data.columns import ParquetError, check, read_columns
from slam.data.records import BROKEN, RECORD, SUCCESS, Shard
from slam.errors import SlamError
from slam.files import whole_folder, write_json

NEEDED = ("url", "caption")
ROWS = 2**20
DIGITS = 7  # of a row's number in its shard; a key is the shard's name and those, as img2dataset has it
REMEDY = (
    "download what the filter kept, then set source.kind to img2dataset and source.path to shards: img2dataset "
    "--url_list data/filtered/manifest.parquet --input_format parquet --url_col url --caption_col caption "
    "--output_format webdataset --output_folder shards --resize_mode keep_ratio --image_size 512 "
    "--save_additional_columns '[\"aesthetic\"]'"
)


def make(config: Source, raw: Path) -> dict:
    """Write `raw`, which names the row groups of the files in config.path; returns the counts."""
    path = Path(config.path).absolute()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise SlamError(f"source.path = {path}: expected a Parquet file or a folder of *.parquet, found none")
    runs = [(file, groups) for file in files for groups in _runs(file)]
    entries = [
        {"name": f"{number:05d}", "parquet": str(file)} | ({"groups": groups} if groups else {})
        for number, (file, groups) in enumerate(runs)
    ]
    with whole_folder(raw) as partial:
        write_json(partial / "index.json", {"kind": "metadata", "verbatim": False, "shards": entries})
    return {"files": len(files), "shards": len(entries)}


def _runs(file: Path) -> list[tuple[int, int] | None]:
    """Row groups [from, to) of at most ROWS rows together; [None] for a file whose footer cannot be read."""
    sizes = check(file, NEEDED)
    runs, start = [], 0
    for i in range(1, len(sizes) + 1):
        if i == len(sizes) or sum(sizes[start : i + 1]) > ROWS:
            runs.append((start, i))
            start = i
    return runs or [None]


def records(shard: Shard, phash: bool) -> pa.Table:
    """See `slam.data.records.read_records`. There is no picture to hash: `phash` and `sha256` are null."""
    try:
        rows = read_columns(shard.parquet, NEEDED, shard.groups)
        status, detail = SUCCESS, None
    except ParquetError as error:
        rows = pa.table({"url": pa.nulls(max(error.rows, 1), pa.string())})
        status, detail = BROKEN, str(error)
    numbers = pa.array(np.arange(len(rows))).cast(pa.string())
    columns = {name: rows[name] for name in rows.column_names}
    columns["key"] = pc.binary_join_element_wise(shard.name, pc.utf8_lpad(numbers, DIGITS, "0"), "")
    columns["status"] = pa.repeat(status, len(rows))
    columns["detail"] = pa.repeat(pa.scalar(detail, pa.string()), len(rows))
    return pa.table([columns.get(field.name, pa.nulls(len(rows), field.type)) for field in RECORD], schema=RECORD)
