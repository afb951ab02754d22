"""The one type that every source becomes behind the door: a table of RECORD for each shard, and a way to its pictures.

A shard is the unit of work, what one process reads at a time. Its records are a function of its files alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from slam.data.pictures import BrokenPicture
from slam.errors import SlamError
from slam.files import read_json

SUCCESS = "success"
DOWNLOAD = ("failed_to_download", "failed_to_resize")  # img2dataset's words for what it did not get
BROKEN, UNSAFE, MISSING = FOUND = ("broken", "unsafe", "missing")  # what reading the files finds out
STATUS = (SUCCESS, *DOWNLOAD, *FOUND)

RECORD = pa.schema(
    [
        ("key", pa.string()),  # names the row, uniquely over all shards
        ("url", pa.string()),
        ("caption", pa.string()),  # stripped, on one line
        ("width", pa.int32()),  # pixels, of the picture as it was found
        ("height", pa.int32()),
        ("short_side", pa.int32()),  # least of the sizes found and stored: a picture may be stored enlarged or shrunk
        ("aesthetic", pa.float32()),  # 1 to 10
        ("watermark", pa.float32()),  # probability
        ("nsfw", pa.float32()),  # probability
        ("similarity", pa.float32()),  # of picture and caption by CLIP, a cosine
        ("sha256", pa.string()),  # hexadecimal; of the picture's bytes as they were found
        ("phash", pa.uint64()),  # null unless it was asked for
        ("status", pa.string()),  # one of STATUS
        ("detail", pa.string()),  # a sentence, where the status is not SUCCESS
        ("member", pa.string()),  # where the picture is: a member of the tar or a file of the folder
        ("offset", pa.int64()),  # of the member's header in the tar, bytes; 0 in a folder
    ]
)


class Shard(NamedTuple):
    """Where its rows and pictures lie; which of the places are set depends on the kind."""

    name: str  # 00000: unique in its source, and its order there
    kind: str  # of the source, a key of slam.data.sources.SOURCES
    parquet: Path  # its rows
    tar: Path | None = None  # shapes, img2dataset: its pictures
    stats: Path | None = None  # shapes, img2dataset: what the downloader counted
    images: Path | None = None  # folder, coco: the folder of its pictures
    groups: tuple[int, int] | None = None  # metadata: the row groups [from, to) of the Parquet file


PLACES = ("parquet", "tar", "stats", "images")


class Raw(NamedTuple):
    """What the source stage left."""

    kind: str
    shards: list[Shard]  # in the order of their names
    verbatim: bool  # the pictures are the bytes that `sha256` was taken of; img2dataset may have re-encoded them


def read_raw(folder: Path) -> Raw:
    """What `index.json` in `folder` names. Relative places are relative to `folder`."""
    index = read_json(folder / "index.json", "slam source")
    shards = []
    for entry in index["shards"]:
        places = {place: folder / entry[place] for place in PLACES if place in entry}
        groups = tuple(entry["groups"]) if "groups" in entry else None
        shards.append(Shard(entry["name"], index["kind"], **places, groups=groups))
    return Raw(index["kind"], sorted(shards, key=lambda shard: shard.name), index["verbatim"])


def read_records(shard: Shard, phash: bool = False) -> pa.Table:
    """A row of RECORD for each thing that was asked for, sorted by key; a bad one has a status and a detail.

    `phash` decodes every picture. Raises `SlamError` for what is wrong with the whole source: a column that no
    name of it is found for, a value of another type.
    """
    return _source(shard).records(shard, phash)


def open_pictures(shard: Shard) -> AbstractContextManager[Callable[[str, int], bytes]]:
    """A context whose value reads the picture at (member, offset).

    It raises `SlamError` when another picture stands there. `open_pictures` itself does for a source without pictures.
    """
    source = _source(shard)
    if not hasattr(source, "open_pictures"):
        raise SlamError(f"source.kind = {shard.kind} has no pictures, only what is told of them: {source.REMEDY}")
    return source.open_pictures(shard)


def contents(shard: Shard, places: Iterable[tuple[str, int]]) -> Iterator[bytes | BrokenPicture]:
    """The bytes of the picture at each (member, offset), or why they are no picture's. Raises `SlamError` when a file
    of the shard cannot be read."""
    try:
        with open_pictures(shard) as read:
            for member, offset in places:
                try:
                    content = read(member, offset)
                except BrokenPicture as error:
                    content = error
                yield content
    except OSError as error:
        raise SlamError(f"the pictures of shard {shard.name} cannot be read: {error}") from None


def _source(shard: Shard):
    from slam.data.sources import SOURCES  # each of them imports this module

    return SOURCES[shard.kind]
