"""Foreign tars: their headers are walked, nothing is ever extracted, and each sample is judged by itself.

A sample is what shares a key: KEY.jpg (or .jpeg, .png, .webp), KEY.txt, KEY.json. One that is anything else (a link, a
special file, a name with a folder or `..` or a root in it, another extension such as a pickle's, a key that comes
twice, a member over MAX_BYTES) is refused and the rest of the tar read on. Where the tar itself is damaged, a
truncated file or a header whose checksum does not hold, reading ends: what stands before is kept, and `Scan.damage`
says at which byte. It is not taken up behind the damage, where the bytes of a picture could pass for a header.

KEY.txt and KEY.json are never read: the row of the Parquet file is the truth, so a broken one costs nothing.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from slam.data.pictures import EXTENSIONS, MAX_BYTES
from slam.data.records import BROKEN, UNSAFE
from slam.errors import SlamError

MEMBER = re.compile(rf"([A-Za-z0-9_-]{{1,80}})\.({'|'.join(EXTENSIONS)}|txt|json)")  # no folder, no `..`, no root
KEY = re.compile(r"(?:.*/)?([A-Za-z0-9_-]{1,80})\..*", re.DOTALL)  # of a name that is refused: whose it pretends to be
SHOWN = 100  # characters of a name in a sentence
BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED = 64 * 2**10  # bytes of a member's extended header; webdataset's hold a time of 30
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
GNU_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, *GNU_LONG)


class Place(NamedTuple):
    member: str
    offset: int  # of its header, bytes
    size: int  # bytes


class Refusal(NamedTuple):
    status: str  # BROKEN or UNSAFE
    detail: str


class Scan(NamedTuple):
    pictures: dict[str, Place]  # by key, in the order of the tar
    refused: dict[str, Refusal]  # by key, or by the name where it holds none
    damage: str | None  # why reading ended before the end, and at which byte


class _DamageError(Exception):
    pass


def scan(tar: Path) -> Scan:
    """What the headers of `tar` tell. Never raises for its content; a file that cannot be read is damaged at byte 0."""
    pictures: dict[str, Place] = {}
    refused: dict[str, Refusal] = {}
    seen: set[str] = set()
    damage = None
    try:
        for member, offset in _members(tar):
            key, refusal = _judge(member, seen, pictures)
            if refusal:
                refused.setdefault(key, refusal)
            elif not member.name.endswith((".txt", ".json")):
                pictures[key] = Place(member.name, offset, member.size)
            seen.add(member.name)
    except (_DamageError, OSError) as error:
        damage = str(error)
    return Scan({key: place for key, place in pictures.items() if key not in refused}, refused, damage)


def _judge(member: tarfile.TarInfo, seen: set[str], pictures: dict[str, Place]) -> tuple[str, Refusal | None]:
    """The member's key, and why its sample is refused."""
    match, shown = MEMBER.fullmatch(member.name), ascii(member.name[:SHOWN])
    if not match:
        pretended = KEY.fullmatch(member.name)
        key = pretended[1] if pretended else shown
        return key, Refusal(UNSAFE, f"{shown} is no name like 000000012.jpg, .txt or .json")
    key, extension = match.groups()
    if member.type not in PLAIN:
        return key, Refusal(UNSAFE, f"{shown} is a link or special file, not a plain one")
    if member.name in seen or (extension in EXTENSIONS and key in pictures):
        return key, Refusal(UNSAFE, f"{shown} is the second of its key: which of them the row means is not told")
    if member.size > MAX_BYTES:
        return key, Refusal(BROKEN, f"{shown} has {member.size} bytes, at most {MAX_BYTES} are read")
    return key, None


def _members(tar: Path) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Each member and the offset of its header. Not by TarFile, which takes a corrupt header for the end, silently.

    An extended header (pax, which webdataset writes for the time, or GNU's) belongs to the member behind it.
    """
    with tar.open("rb") as file:
        end, offset, long = tar.stat().st_size, 0, None
        while True:
            file.seek(offset)
            block = file.read(BLOCK)
            if block == bytes(BLOCK) and long is None:  # marks the end
                return
            member = _header(block, offset)
            skip = BLOCK * (1 + (-(-member.size // BLOCK) if _has_data(member) else 0))
            if member.size < 0 or (_has_data(member) and offset + BLOCK + member.size > end):
                raise _DamageError(f"the tar ends inside the member at byte {offset}, which claims {member.size} bytes")
            if member.type in EXTENDED:
                if member.size > MAX_EXTENDED:
                    raise _DamageError(f"the tar has an extended header of {member.size} bytes at byte {offset}")
                long = (long or {}) | _extended(file.read(member.size), member.type, offset)
            else:
                if long and "size" in long and long["size"] != str(member.size):
                    raise _DamageError(f"the tar tells two sizes of the member at byte {offset}")
                member.name = long.get("path", member.name) if long else member.name
                long = None
                yield member, offset
            offset += skip


def _has_data(member: tarfile.TarInfo) -> bool:
    """Whether blocks of data follow: as every reader of tars has it, a link's or a folder's size means nothing."""
    return member.isreg() or member.type in EXTENDED or member.type not in tarfile.SUPPORTED_TYPES


def _header(block: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise _DamageError(f"the tar is damaged at byte {offset}: {error}") from None


def _extended(content: bytes, kind: bytes, offset: int) -> dict[str, str]:
    """The records of an extended header: {"path": …, "size": …} and others."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if kind in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        return {}
    records = {}
    while content.rstrip(b"\0"):
        match = re.match(rb"(\d{1,6}) ([^=]+)=", content)
        length = int(match[1]) if match else 0
        if not match or not match.end() < length <= len(content):
            raise _DamageError(f"the tar is damaged at byte {offset}: an extended header that cannot be read")
        value = content[match.end() : length - 1]
        records[match[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return records


def read_picture(file: BinaryIO, member: str, offset: int) -> bytes:
    """The bytes of the member whose header starts at `offset` of an open tar.

    Raises `SlamError` when another member stands there: the tar is not the one that the filter saw.
    """
    file.seek(offset)
    try:
        header = _header(file.read(BLOCK), offset)
    except _DamageError as error:
        raise SlamError(f"{file.name}: expected {member} at byte {offset}, found {error}: {REFILTER}") from None
    if header.name != member or _judge(header, set(), {})[1]:
        raise SlamError(f"{file.name}: expected {member} at byte {offset}, found {header.name!r}: {REFILTER}")
    content = file.read(header.size)
    if len(content) != header.size:
        raise SlamError(f"{file.name}: the file ends inside {member}: {REFILTER}")
    return content


REFILTER = "the tar changed since `slam filter` read it; run `slam filter` again"
