"""Shards as img2dataset leaves them, and what can be wrong with one: each breakage says what it did to whom.

A breakage takes a `Built` shard and a generator, changes it, and returns {key: (status, words of its detail)} for
every picture that is now bad. What it does not name has to be kept, with its bytes.
"""

import io
import json
import struct
import tarfile
import zlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from slam.data.pictures import MAX_BYTES
from slam.data.sources.img2dataset import NO_ROW
from slam.data.sources.shapes import SCHEMA

SAMPLES = 6
WHOLE = "expected a whole JPEG, PNG or WebP"
NO_NAME = "is no name like"
LINK = "is a link or special file"


def picture(rng, extension, side=24):
    buffer = io.BytesIO()
    form = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


@dataclass
class Built:
    """A shard while it is made: members (name, bytes, type), rows, and what is done to the tar's bytes."""

    members: list[tuple[str, bytes, bytes]]
    rows: list[dict]
    form: int
    phash: bool = False  # the breakage shows only when the picture is decoded
    headers: dict[str, bytes] = field(default_factory=dict)  # pax records by member
    edit: object = None  # tar bytes, layout -> bytes
    parquet: object = None  # parquet bytes -> bytes
    expected: dict = field(default_factory=dict)

    @property
    def keys(self):
        return [row["key"] for row in self.rows]

    def name(self, key):
        """Of the picture."""
        return next(n for n, *_ in self.members if n.split(".")[0] == key and not n.endswith((".txt", ".json")))

    def put(self, old, new, content=None, kind=tarfile.REGTYPE):
        at = next(i for i, member in enumerate(self.members) if member[0] == old)
        self.members[at] = (new, self.members[at][1] if content is None else content, kind)


def build(rng, number):
    rows, members = [], []
    for i in rng.permutation(SAMPLES):  # a tar is in the order of completion
        key, extension = f"{number:05d}{i:04d}", ["jpg", "png", "webp"][rng.integers(3)]
        caption = f"picture {i}"
        rows.append({"key": key, "url": f"http://a/{key}", "caption": caption, "status": "success", "aesthetic": 6.0})
        members.append((f"{key}.{extension}", picture(rng, extension), tarfile.REGTYPE))
        members.append((f"{key}.json", json.dumps(rows[-1]).encode(), tarfile.REGTYPE))
        members.append((f"{key}.txt", caption.encode(), tarfile.REGTYPE))
    rows.sort(key=lambda row: row["key"])
    return Built(members, rows, [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT][rng.integers(3)])


def write(built, folder, name):
    """The shard's files; `built.expected` is complete then."""
    buffer, layout = io.BytesIO(), {}
    for member, content, kind in built.members:
        info = tarfile.TarInfo(member)
        info.type, info.mtime = kind, 1700000000.25  # a fraction: pax tells it in a header of its own
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = "/etc/passwd"
        info.size = len(content) if kind == tarfile.REGTYPE else 0
        info.pax_headers = built.headers.get(member, {})
        header = info.tobuf(built.form, "utf-8", "surrogateescape")
        start = buffer.tell()
        buffer.write(header)
        layout[member] = (start, start + len(header) - 512, info.size)  # first header, plain header, bytes
        buffer.write(content[: info.size].ljust(-(-info.size // 512) * 512, b"\0"))
    content = buffer.getvalue() + bytes(10240 - len(buffer.getvalue()) % 10240)
    if built.edit:
        content = built.edit(content, layout)
    (folder / f"{name}.tar").write_bytes(content)
    table = pa.Table.from_pylist(built.rows, SCHEMA)
    pq.write_table(table, folder / f"{name}.parquet")
    if built.parquet:
        path = folder / f"{name}.parquet"
        path.write_bytes(built.parquet(path.read_bytes()))


# Of a sample


def _content(built, rng, key, content, *words):
    built.put(built.name(key), built.name(key), content)
    return {key: ("broken", words)}


def wrong_magic(built, rng, key):
    old = next(c for n, c, _ in built.members if n == built.name(key))
    return _content(built, rng, key, rng.bytes(12) + old[12:], WHOLE)


def another_format(built, rng, key):
    content = [b"GIF89a", b"<svg/>", b"BM", b"II*\0", b"<!doctype html>", b"\x80\x04cos\nsystem\n"][rng.integers(6)]
    return _content(built, rng, key, content + rng.bytes(200), WHOLE)


def zero_bytes(built, rng, key):
    return _content(built, rng, key, b"", WHOLE)


def half_a_picture(built, rng, key):
    built.phash = True
    name = built.name(key)
    content = picture(rng, name.split(".")[1], 64)
    return _content(built, rng, key, content[: len(content) // 2], WHOLE)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, before=b"", pixels=b"", after=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(64 * 2**20))  # 64 KiB that become 64 MiB
SOME = zlib.compress(bytes(16 * (1 + 3 * 16)))  # the pixels of 16 x 16


def pixel_bomb(built, rng, key):
    side = int(rng.integers(8_200, 16_384))
    vp8x = b"WEBPVP8X" + struct.pack("<IIHBHB", 10, 0, side, 0, side, 0)
    jpeg = picture(rng, "jpg")
    at = jpeg.index(b"\xff\xc0") + 5
    content = [
        png(side, side, pixels=ZEROS),
        jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :],
        b"RIFF" + struct.pack("<I", len(vp8x)) + vp8x + picture(rng, "webp")[12:],
        png(2**31 - 1, 2**31 - 1),
    ][rng.integers(4)]
    return _content(built, rng, key, content, "pixels")


def compression_bomb(built, rng, key):
    content = [
        png(16, 16, chunk(b"zTXt", b"a\0\0" + ZEROS), SOME),
        png(16, 16, chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS), SOME),
        png(16, 16, chunk(b"iCCP", b"a\0\0" + ZEROS), SOME),
    ][rng.integers(3)]
    return _content(built, rng, key, content, "Decompressed data too large")


def bomb_behind_the_pixels(built, rng, key):
    built.phash = True
    return _content(built, rng, key, png(16, 16, b"", SOME, chunk(b"zTXt", b"a\0\0" + ZEROS)), "too large")


def more_pixel_data_than_pixels(built, rng, key):
    """No bomb: what is too much is never inflated."""
    built.put(built.name(key), built.name(key), png(16, 16, pixels=ZEROS))
    return {}


def no_picture(built, rng, key):
    built.members.remove(next(m for m in built.members if m[0] == built.name(key)))
    return {key: ("missing", ("the tar does not hold it",))}


def no_text(built, rng, key):
    gone = [f"{key}.json", f"{key}.txt"][rng.integers(2)]
    built.members = [member for member in built.members if member[0] != gone]
    return {}  # the Parquet file tells what they told


def bad_text(built, rng, key):
    name = [f"{key}.json", f"{key}.txt"][rng.integers(2)]
    built.put(name, name, [b"{", b"\xff\xfe\x00", b"", rng.bytes(3000)][rng.integers(4)])
    return {}


def foreign_name(built, rng, key):
    extension = built.name(key).split(".")[1]
    name = ["../{}", "../../../../{}", "/tmp/{}", "/{}", "a/{}", "./{}", "..\\{}"][rng.integers(7)]
    name = name.format(f"{key}.{extension}")
    built.put(built.name(key), name)
    return {key: ("unsafe", (NO_NAME,))} if "\\" not in name else _renamed(key, name)


def _renamed(key, name):
    return {key: ("missing", ("does not hold it",)), ascii(name): ("unsafe", (NO_NAME,))}


def name_that_is_no_text(built, rng, key):
    name = f"\udcff{key}.jpg"
    built.put(built.name(key), name)
    return _renamed(key, name)


def hidden_name(built, rng, key):
    built.form = tarfile.PAX_FORMAT
    built.headers[built.name(key)] = {"path": f"../{key}.jpg"}
    return {key: ("unsafe", (NO_NAME,))}


def special_file(built, rng, key):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    built.put(built.name(key), built.name(key), b"", kinds[rng.integers(6)])
    return {key: ("unsafe", (LINK,))}


def pickle(built, rng, key):
    name = f"{key}.{['pkl', 'pickle', 'pyd', 'pth', 'npy', 'jpg.pkl', 'exe'][rng.integers(7)]}"
    built.members.insert(int(rng.integers(len(built.members) + 1)), (name, b"\x80\x04cos\nsystem\n", tarfile.REGTYPE))
    return {key: ("unsafe", (NO_NAME,))}


def second_of_a_key(built, rng, key):
    twin = (f"{key}.{['jpg', 'png', 'webp'][rng.integers(3)]}", picture(rng, "png"), tarfile.REGTYPE)
    built.members.insert(int(rng.integers(len(built.members) + 1)), twin)
    return {key: ("unsafe", ("is the second of its key",))}


def no_row(built, rng, key):
    built.rows = [row for row in built.rows if row["key"] != key]
    return {key: ("broken", (NO_ROW,))}


def caption_that_is_no_text(built, rng, key):
    """Its caption is null then, and the filter says what becomes of that."""
    row = next(row for row in built.rows if row["key"] == key)
    row["caption"] = "QQQQQQQQ"
    built.parquet = lambda content: content.replace(b"QQQQQQQQ", b"QQQ\xff\xfeQQQ")
    return {}


OF_A_SAMPLE = [
    *(wrong_magic, another_format, zero_bytes, half_a_picture, pixel_bomb, compression_bomb, bomb_behind_the_pixels),
    *(more_pixel_data_than_pixels, no_picture, no_text, bad_text, foreign_name, name_that_is_no_text, hidden_name),
    *(special_file, pickle, second_of_a_key, no_row, caption_that_is_no_text),
]


# Of the tar: what the damage costs depends on where it falls, so `expected` is filled in when the tar is written.


def _from(built, layout, byte):
    """The pictures that do not end before `byte` are broken."""
    for key in built.keys:
        _, header, size = layout[built.name(key)]
        if header + 512 + size > byte:
            built.expected[key] = ("broken", ("byte",))


def cut(built, rng):
    def edit(content, layout):
        at = int(rng.integers(max(header + 512 + size for _, header, size in layout.values()) + 1))
        _from(built, layout, at)
        return content[:at]

    built.edit = edit


def huge_size(built, rng):
    def edit(content, layout):
        name = built.members[rng.integers(len(built.members))][0]
        _, at, _ = layout[name]
        _from(built, layout, at)
        info = tarfile.TarInfo(name)
        info.size = [2**33, 2**40, 2**62, -1, -(2**40)][rng.integers(5)]
        return content[:at] + info.tobuf(tarfile.GNU_FORMAT) + content[at + 512 :]

    built.edit = edit


def oversize(built, rng):
    """65 MiB in one member, and the rest of the tar behind it."""

    def edit(content, layout):
        key = built.keys[rng.integers(SAMPLES)]
        name = built.name(key)
        _, at, size = layout[name]
        info = tarfile.TarInfo(name)
        info.size = MAX_BYTES + 1
        built.expected[key] = ("broken", (f"has {info.size} bytes, at most",))
        rest = at + 512 + -(-size // 512) * 512
        room = -(-info.size // 512) * 512
        return content[:at] + info.tobuf(tarfile.GNU_FORMAT) + bytes(room) + content[rest:]

    built.edit = edit


def flip_in_a_header(built, rng):
    def edit(content, layout):
        name = built.members[rng.integers(len(built.members))][0]
        first, at, _ = layout[name]
        _from(built, layout, at)
        return _flip(content, at + int(rng.integers(148)), rng)  # its name, mode, owners, size, time

    built.edit = edit


def flip_in_a_picture(built, rng):
    """A decoder may or may not mind; no other sample is touched."""

    def edit(content, layout):
        key = built.keys[rng.integers(SAMPLES)]
        _, at, size = layout[built.name(key)]
        built.expected[key] = (("broken", "success"), ("",))
        return _flip(content, at + 512 + int(rng.integers(size)), rng)

    built.phash = bool(rng.integers(2))
    built.edit = edit


def _flip(content, at, rng):
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def noise(built, rng):
    def edit(content, layout):
        _from(built, layout, 0)
        return [b"", rng.bytes(4000), b"\x1f\x8b" + rng.bytes(4000), b"PK\x03\x04" + rng.bytes(500)][rng.integers(4)]

    built.edit = edit


def no_parquet(built, rng):
    kind = rng.integers(4)
    built.parquet = lambda whole: [b"", b"PAR1", whole[: len(whole) - int(rng.integers(1, 300))], rng.bytes(900)][kind]
    built.expected = dict.fromkeys(built.keys, ("broken", ("expected a whole Parquet file",)))


OF_A_TAR = [cut, cut, huge_size, flip_in_a_header, flip_in_a_picture, noise, no_parquet]
