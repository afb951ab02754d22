"""img2dataset's webdataset shards: how to write them, and how to read foreign ones safely.

A shard is `00000.tar` (KEY.png or .jpg or .webp, KEY.txt, KEY.json for every picture that was had), `00000.parquet`
(a row for every picture that was asked for) and `00000_stats.json`. Source: img2dataset 1.47 writer.py, downloader.py.

A foreign tar is never extracted. Its headers are walked once (`pictures`), which refuses whatever img2dataset does
not write; a picture is then read by its offset (`read_picture`) and decoded under our own limits (`decode`).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, UnidentifiedImageError

from slam.errors import SlamError
from slam.files import read_json

PICTURES = ("jpg", "jpeg", "png", "webp")
MEMBER = re.compile(rf"([A-Za-z0-9_-]{{1,80}})\.({'|'.join(PICTURES)}|txt|json)")  # no folder, no `..`, no root
MAX_BYTES = 64 * 2**20  # of a member
MAX_PIXELS = 64 * 2**20  # of a picture, checked before it is decoded
BLOCK = tarfile.BLOCKSIZE

SCHEMA = pa.schema(
    [("aesthetic", pa.float64())]  # what --save_additional_columns adds comes first
    + [(name, pa.string()) for name in ("caption", "url", "key", "status", "error_message")]
    + [(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")]
    + [(name, pa.string()) for name in ("exif", "sha256")]
)


class Shard(NamedTuple):
    name: str  # 00000
    tar: Path
    parquet: Path
    stats: Path


class Raw(NamedTuple):
    """What the source stage left."""

    shards: list[Shard]
    verbatim: bool  # the tars hold the bytes that `sha256` was taken of; img2dataset may have re-encoded them


def read_raw(folder: Path) -> Raw:
    """The shards that `index.json` in `folder` names, in the order of their names."""
    index = read_json(folder / "index.json", "slam source")
    shards = [
        Shard(Path(entry["tar"]).stem, *(folder / entry[part] for part in ("tar", "parquet", "stats")))
        for entry in index["shards"]
    ]
    return Raw(sorted(shards), index["verbatim"])


def write_shard(folder: Path, name: str, rows: Sequence[dict], images: Sequence[bytes | None]) -> None:
    """Write `rows` (keys of SCHEMA) and the PNG `images` (None where the download failed) as one shard.

    The same rows give the same bytes: the tar's times and the statistics' are 0, the rest is img2dataset's.
    """
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, image in zip(rows, images, strict=True):
            if image is not None:
                parts = {"json": json.dumps(row, indent=4).encode(), "png": image, "txt": row["caption"].encode()}
                for extension, content in parts.items():
                    _add(tar, f"{row['key']}.{extension}", content)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"{name}.parquet")
    messages = pd.Series([row["error_message"] or row["status"] for row in rows])
    status = pd.Series([row["status"] for row in rows])
    stats = {
        "count": len(rows),
        "successes": int((status == "success").sum()),
        "failed_to_download": int((status == "failed_to_download").sum()),
        "failed_to_resize": int((status == "failed_to_resize").sum()),
        "duration": 0.0,
        "start_time": 0.0,
        "end_time": 0.0,
        "status_dict": {key: int(count) for key, count in messages.value_counts(sort=False).items()},
    }
    (folder / f"{name}_stats.json").write_text(json.dumps(stats, indent=4), encoding="utf-8")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = len(content), 0o444, "bigdata", "bigdata"
    tar.addfile(member, io.BytesIO(content))


def pictures(tar: Path) -> pd.DataFrame:
    """The pictures of a tar: key, member (its name), offset (of its header), one row each, sorted by key.

    Reads headers only. Raises `SlamError` for a corrupt or truncated tar, a link, a name that img2dataset does not
    write, a key that comes twice, a member over MAX_BYTES.
    """
    found: dict[str, tuple[str, int]] = {}
    names: set[str] = set()
    for offset, member in _members(tar):
        key, extension = _accept(tar, member)
        if member.name in names or (extension in PICTURES and key in found):
            raise SlamError(f"{tar}: expected each key once, found a second {member.name}: {REBUILD}")
        names.add(member.name)
        if extension in PICTURES:
            found[key] = (member.name, offset)
    rows = [(key, *found[key]) for key in sorted(found)]
    return pd.DataFrame(rows, columns=["key", "member", "offset"]).astype({"key": "str", "member": "str"})


def _members(tar: Path) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """Each header and its offset. Not by TarFile, which takes a corrupt header for the end and says nothing."""
    offset = 0
    try:
        with tar.open("rb") as file:
            while (block := file.read(BLOCK)) != bytes(BLOCK):  # a block of zeros marks the end
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                yield offset, member
                offset += BLOCK * (1 + -(-member.size // BLOCK))
                file.seek(offset)
    except FileNotFoundError:
        raise SlamError(f"{tar} does not exist: {REBUILD}") from None
    except tarfile.HeaderError as error:
        raise SlamError(f"{tar}: expected a whole tar, found {error} at byte {offset}: {REBUILD}") from None


REBUILD = "make this shard again (delete its .tar, .parquet and _stats.json, then run what made them)"


def _accept(tar: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    match = MEMBER.fullmatch(member.name)
    if not member.isreg():
        raise SlamError(f"{tar}: expected plain files, found {member.name!r}, a link or special file: do not trust it")
    if not match:
        raise SlamError(f"{tar}: expected names like 000000012.jpg, .txt or .json, found {member.name!r}: {REBUILD}")
    if member.size > MAX_BYTES:
        raise SlamError(f"{tar}: {member.name} has {member.size} bytes, at most {MAX_BYTES} are read: {REBUILD}")
    return match[1], match[2]


def read_picture(file: BinaryIO, member: str, offset: int) -> bytes:
    """The bytes of the member whose header starts at `offset` of an open tar.

    Raises `SlamError` when another member stands there: the tar is not the one that the filter saw.
    """
    file.seek(offset)
    try:
        header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise SlamError(f"{file.name}: expected {member} at byte {offset}, found {error}: {REFILTER}") from None
    if header.name != member:
        raise SlamError(f"{file.name}: expected {member} at byte {offset}, found {header.name!r}: {REFILTER}")
    _accept(Path(file.name), header)
    content = file.read(header.size)
    if len(content) != header.size:
        raise SlamError(f"{file.name}: the file ends inside {member}: {REFILTER}")
    return content


REFILTER = "the tar changed since `slam filter` read it; run `slam filter` again"


def decode(content: bytes, where: str) -> Image.Image:
    """An RGB picture, upright, transparent parts on white. `where` names it in the error."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SlamError(f"{where}: {image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded")
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SlamError(f"{where}: expected a whole JPEG, PNG or WebP picture, found {error}: {REBUILD}") from None


def check_complete(shards: Iterable[Shard]) -> None:
    """Raises `SlamError` naming the files that a shard lacks: img2dataset writes the statistics last."""
    missing = [str(path) for shard in shards for path in shard[1:] if not path.is_file()]
    if missing:
        few = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise SlamError(
            f"expected a .tar, a .parquet and a _stats.json for each shard, {len(missing)} are missing: {few}: "
            "run img2dataset again with --incremental_mode incremental, it completes them"
        )
