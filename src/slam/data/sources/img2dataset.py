"""img2dataset's webdataset output: NNNNN.tar, NNNNN.parquet and NNNNN_stats.json a shard. Named, not copied.

The Parquet file has a row for every picture that was asked for; the tar has KEY.jpg (or .png, .webp), KEY.txt and
KEY.json for each that was had, in the order in which they came. Source: img2dataset 1.47 writer.py, downloader.py.

Nothing is lost in silence, and a bad shard costs no other. A row whose picture is not there or is no good is listed
as missing, unsafe or broken; so is what the tar holds without a row. Where the Parquet file cannot be read, each
picture of the tar is listed as broken; where the tar holds none either, the shard is, under its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from slam.config import Source
from slam.data import pictures
from slam.data.columns import ParquetError, check, read_columns
from slam.data.pictures import BrokenPicture
from slam.data.records import BROKEN, MISSING, RECORD, SUCCESS, Shard
from slam.data.tars import BLOCK, Place, Refusal, Scan, read_picture, scan
from slam.errors import SlamError
from slam.files import whole_folder, write_json
from slam.progress import progress

NEEDED = ("key", "url", "caption", "status")
NO_ROW = "the tar holds it, but the Parquet file has no row for it"
HEAD = 32 * 2**10  # bytes that tell the size of most pictures


def make(config: Source, raw: Path) -> dict:
    """Write `raw`, which names the shards in config.path; returns how many."""
    folder = Path(config.path).absolute()
    stems = sorted({path.stem for end in ("*.tar", "*.parquet") for path in folder.glob(end)})
    if not stems:
        raise SlamError(f"source.path = {folder}: expected img2dataset's 00000.tar, .parquet, …, found none")
    ends = {"tar": ".tar", "parquet": ".parquet", "stats": "_stats.json"}
    entries = [{"name": s} | {place: str(folder / (s + end)) for place, end in ends.items()} for s in stems]
    _check_complete(entries)
    for entry in progress(entries, "shards"):
        check(Path(entry["parquet"]), NEEDED)
    with whole_folder(raw) as partial:
        write_json(partial / "index.json", {"kind": "img2dataset", "verbatim": False, "shards": entries})
    return {"shards": len(entries)}


def _check_complete(entries: list[dict]) -> None:
    """Raises `SlamError` naming the files that a shard lacks: img2dataset writes the statistics last."""
    missing = [e[place] for e in entries for place in ("tar", "parquet", "stats") if not Path(e[place]).is_file()]
    if missing:
        few = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise SlamError(
            f"expected a .tar, a .parquet and a _stats.json for each shard, {len(missing)} are missing: {few}: "
            "run img2dataset again with --incremental_mode incremental, it completes them"
        )


class Look(NamedTuple):
    """What a picture's bytes told."""

    width: int
    height: int
    sha256: str | None
    phash: int | None


def records(shard: Shard, phash: bool) -> pa.Table:
    """See `slam.data.records.read_records`. Reads the rows, every header of the tar and the head of every picture."""
    found = scan(shard.tar)
    try:
        rows = read_columns(shard.parquet, NEEDED)
    except ParquetError as error:
        strangers = sorted({*found.pictures, *found.refused}) or [shard.name]
        return _listed(strangers, str(error), found)
    had = rows.filter(pc.equal(rows["status"], SUCCESS))
    asked = set(had["key"].to_pylist())
    wanted = {key: place for key, place in found.pictures.items() if key in asked}
    looks = _look(shard.tar, wanted, bool(had["sha256"].null_count), phash)
    strangers = sorted({*found.pictures, *found.refused} - set(rows["key"].to_pylist()))
    return pa.concat_tables([_judged(rows, found, looks), _listed(strangers, NO_ROW, found)]).sort_by("key")


def _look(tar: Path, places: dict[str, Place], sha256: bool, phash: bool) -> dict[str, Look | Refusal]:
    looks: dict[str, Look | Refusal] = {}
    if places:
        with tar.open("rb") as file:
            for key, place in places.items():
                try:
                    looks[key] = _look_at(file, place, sha256, phash)
                except BrokenPicture as error:
                    looks[key] = Refusal(BROKEN, str(error))
    return looks


def _look_at(file: BinaryIO, place: Place, sha256: bool, phash: bool) -> Look:
    file.seek(place.offset + BLOCK)
    content = file.read(place.size if sha256 or phash else min(place.size, HEAD))
    try:
        size = pictures.probe(content, place.member)
    except BrokenPicture:
        if len(content) == place.size:
            raise
        content += file.read(place.size - len(content))
        size = pictures.probe(content, place.member)
    digest = hashlib.sha256(content).hexdigest() if sha256 else None
    return Look(*size, digest, pictures.phash(pictures.decode(content, place.member)) if phash else None)


def _judged(rows: pa.Table, found: Scan, looks: dict[str, Look | Refusal]) -> pa.Table:
    """`rows` as RECORD: with where the picture is and what it told, or why there is none."""
    absent = Refusal(BROKEN, found.damage) if found.damage else Refusal(MISSING, "the tar does not hold it")
    verdicts = [
        (looks.get(key) or found.refused.get(key, absent)) if status == SUCCESS else Refusal(status, detail)
        for key, status, detail in zip(*(rows[n].to_pylist() for n in ("key", "status", "detail")), strict=True)
    ]
    places = [
        found.pictures[key] if isinstance(verdict, Look) else None
        for key, verdict in zip(rows["key"].to_pylist(), verdicts, strict=True)
    ]
    seen = {
        name: pa.array([getattr(verdict, name, None) for verdict in verdicts], RECORD.field(name).type)
        for name in Look._fields
    }
    columns = {name: rows[name] for name in rows.column_names if name in RECORD.names}
    columns |= {name: pc.coalesce(rows[name], seen[name]) for name in ("width", "height", "sha256")}
    columns["short_side"] = pc.min_element_wise(rows["short_side"], seen["width"], seen["height"])
    columns["phash"] = seen["phash"]
    columns["status"] = pa.array([getattr(verdict, "status", SUCCESS) for verdict in verdicts], pa.string())
    columns["detail"] = pa.array([getattr(verdict, "detail", None) for verdict in verdicts], pa.string())
    columns["member"] = pa.array([place and place.member for place in places], pa.string())
    columns["offset"] = pa.array([place and place.offset for place in places], pa.int64())
    return pa.table([columns[name] for name in RECORD.names], schema=RECORD)


def _listed(keys: list[str], why: str, found: Scan) -> pa.Table:
    """A record for each of `keys`, of which nothing is known but why it is no good."""
    verdicts = [found.refused.get(key, Refusal(BROKEN, why)) for key in keys]
    columns = {
        "key": pa.array(keys, pa.string()),
        "status": pa.array([verdict.status for verdict in verdicts], pa.string()),
        "detail": pa.array([verdict.detail for verdict in verdicts], pa.string()),
    }
    return pa.table([columns.get(f.name, pa.nulls(len(keys), f.type)) for f in RECORD], schema=RECORD)


@contextmanager
def open_pictures(shard: Shard) -> Iterator[Callable[[str, int], bytes]]:
    """See `slam.data.records.open_pictures`."""
    with shard.tar.open("rb") as file:
        yield lambda member, offset: read_picture(file, member, offset)
