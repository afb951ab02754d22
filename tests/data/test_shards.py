import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from slam.data import shards
from slam.data.shards import decode, pictures, read_picture
from slam.errors import SlamError


def make_tar(path, members):
    """`members`: (name, bytes) or a TarInfo."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def encoded(image, form="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def test_offsets_are_those_that_tarfile_finds(drawn):
    tar = drawn / "raw/00000.tar"
    with tarfile.open(tar) as archive, tar.open("rb") as file:
        members = {m.name: m for m in archive if m.name.endswith(".png")}
        found = pictures(tar)
        assert list(found.member) == sorted(members)
        for row in found.itertuples():
            assert row.offset == members[row.member].offset
            assert read_picture(file, row.member, row.offset) == archive.extractfile(row.member).read()


def test_order_in_the_tar_does_not_matter(tmp_path):
    tar = make_tar(tmp_path / "a.tar", [("2.txt", b"t"), ("2.jpg", b"b"), ("1.webp", b"a"), ("1.json", b"{}")])
    assert list(pictures(tar).key) == ["1", "2"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([link("1.jpg", tarfile.SYMTYPE)], "found '1.jpg', a link"),
        ([link("1.jpg", tarfile.LNKTYPE)], "found '1.jpg', a link"),
        ([link("1.jpg", tarfile.DIRTYPE)], "found '1.jpg', a link"),
        ([("/1.jpg", b"x")], "found '/1.jpg'"),
        ([("../1.jpg", b"x")], "found '../1.jpg'"),
        ([("a/1.jpg", b"x")], "found 'a/1.jpg'"),
        ([("1.pkl", b"x")], "found '1.pkl'"),
        ([("1.jpg", b"x"), ("1.jpg", b"y")], "found a second 1.jpg"),
        ([("1.jpg", b"x"), ("1.png", b"y")], "found a second 1.png"),
        ([("1.txt", b"x"), ("1.txt", b"y")], "found a second 1.txt"),
    ],
)
def test_what_img2dataset_does_not_write_is_refused(tmp_path, members, message):
    with pytest.raises(SlamError, match=message):
        pictures(make_tar(tmp_path / "a.tar", members))


def test_an_oversize_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BYTES", 10)
    with pytest.raises(SlamError, match="1.jpg has 11 bytes, at most 10"):
        pictures(make_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 11)]))


@pytest.mark.parametrize("keep", [0, 300, 512, 700, 1024, 1536, 2000])
def test_a_tar_cut_anywhere_is_refused(tmp_path, keep):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 400), ("2.jpg", b"y" * 400)])
    tar.write_bytes(tar.read_bytes()[:keep])
    with pytest.raises(SlamError, match="expected a whole tar"):
        pictures(tar)


def test_a_flipped_byte_in_a_header_is_refused(tmp_path):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 400), ("2.jpg", b"y" * 400)])
    content = bytearray(tar.read_bytes())
    content[1024 + 2] ^= 1  # tarfile would read 1.jpg and stop without a word
    tar.write_bytes(content)
    with pytest.raises(SlamError, match="expected a whole tar, found bad checksum at byte 1024"):
        pictures(tar)


def test_a_tar_that_changed_since_is_noticed(tmp_path):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("2.jpg", b"y")])
    with tar.open("rb") as file:
        for member, offset in (("2.jpg", 0), ("1.jpg", 512), ("1.jpg", 10**6)):
            with pytest.raises(SlamError, match=f"expected {member} at byte {offset}.*run `slam filter` again"):
                read_picture(file, member, offset)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_pictures_of_the_three_forms_are_decoded(form):
    red = Image.new("RGB", (20, 10), (200, 30, 30))
    assert np.abs(np.asarray(decode(encoded(red, form), "x"), int) - [200, 30, 30]).max() < 6


def test_transparent_parts_become_white_and_grey_becomes_rgb():
    assert decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), "x").getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("L", (4, 4), 7)), "x").getpixel((0, 0)) == (7, 7, 7)


def test_a_turned_picture_is_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), "x").size == (10, 20)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BMP"])
def test_other_forms_are_refused(form):
    with pytest.raises(SlamError, match="00.tar, key 7: expected a whole JPEG, PNG or WebP"):
        decode(encoded(Image.new("RGB", (4, 4)), form), "00.tar, key 7")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_cut_picture_is_refused(form):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, form)
    with pytest.raises(SlamError, match="key 7: expected a whole"):
        decode(content[: len(content) // 2], "key 7")


def test_a_picture_over_the_cap_is_not_decoded(monkeypatch):
    monkeypatch.setattr(shards, "MAX_PIXELS", 99)
    with pytest.raises(SlamError, match="10 x 10 pixels, at most 99"):
        decode(encoded(Image.new("RGB", (10, 10))), "x")
