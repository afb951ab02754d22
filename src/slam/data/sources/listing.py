"""Pictures that lie in a folder as files: what the kinds `folder` and `coco` share.

`write` lists them as Parquet shards in data/raw: key, file, caption and scores. `records` reads each picture: its
size, its sha256, whether it is one. A file outside of the folder is unsafe, one that is not there is missing, and
what is no picture is broken; each stays a row. Links in the folder are followed: it is the user's own, and Hugging
Face's cache consists of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from slam.data import pictures
from slam.data.pictures import MAX_BYTES, BrokenPicture
from slam.data.records import BROKEN, MISSING, RECORD, SUCCESS, UNSAFE, Shard
from slam.errors import SlamError
from slam.files import whole_folder, write_json

ROWS = 10_000  # pictures a shard
LISTING = pa.schema(
    [("key", pa.string()), ("file", pa.string()), ("url", pa.string()), ("caption", pa.string())]
    + [(score, pa.float32()) for score in ("aesthetic", "watermark", "nsfw", "similarity")]
    + [("fault", pa.string())]  # why the row is broken, if that is known when it is listed
)


def write(raw: Path, kind: str, images: Path, rows: pa.Table) -> dict:
    """Write `rows` (columns of LISTING but `key`; those it lacks are null) as shards into `raw`; returns the counts."""
    with whole_folder(raw) as partial:
        entries = []
        for number, start in enumerate(range(0, len(rows), ROWS)):
            name, part = f"{number:05d}", rows.slice(start, ROWS)
            columns = {column: part[column] for column in part.column_names}
            columns["key"] = pa.array([f"{name}{i:04d}" for i in range(len(part))])
            table = pa.table([columns.get(f.name, pa.nulls(len(part), f.type)) for f in LISTING], schema=LISTING)
            pq.write_table(table, partial / f"{name}.parquet")
            entries.append({"name": name, "parquet": f"{name}.parquet", "images": str(images)})
        write_json(partial / "index.json", {"kind": kind, "verbatim": True, "shards": entries})
    return {"pictures": len(rows), "shards": len(entries)}


def records(shard: Shard, phash: bool) -> pa.Table:
    """See `slam.data.records.read_records`. Reads every picture."""
    try:
        rows = pq.read_table(shard.parquet).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SlamError(f"{shard.parquet}: expected a listing, found {error}: run `slam source` again") from None
    judged = [row | _judged(row, shard.images, phash) for row in rows]
    return pa.Table.from_pylist(judged, RECORD)


def _judged(row: dict, images: Path, phash: bool) -> dict:
    """The columns of RECORD that the picture itself tells."""
    file = row["file"]
    if row["fault"]:
        return {"status": BROKEN, "detail": row["fault"]}
    if not file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\0" in file:
        return {"status": UNSAFE, "detail": f"{file!r} is no name of a file in the folder"}
    try:
        if not (images / file).is_file():
            return {"status": MISSING, "detail": f"{file} is not in the folder, or no plain file"}
        content = _read(images / file)
        width, height = pictures.probe(content, file)
        hashed = pictures.phash(pictures.decode(content, file)) if phash else None
    except (BrokenPicture, OSError) as error:
        return {"status": BROKEN, "detail": str(error)}
    sizes = {"width": width, "height": height, "short_side": min(width, height), "phash": hashed}
    found = {"sha256": hashlib.sha256(content).hexdigest(), "member": file, "offset": 0}
    return sizes | found | {"status": SUCCESS}


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)  # a longer one is refused by its length, whatever it claims


@contextmanager
def open_pictures(shard: Shard) -> Iterator[Callable[[str, int], bytes]]:
    """See `slam.data.records.open_pictures`."""

    def read(member: str, offset: int) -> bytes:
        try:
            return _read(shard.images / member)
        except OSError as error:
            raise SlamError(f"{shard.images / member}: {error}: run `slam filter` again") from None

    yield read
