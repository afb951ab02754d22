import io
import tarfile

import pytest

from slam.data import tars
from slam.data.records import BROKEN, UNSAFE
from slam.data.tars import read_picture, scan
from slam.errors import SlamError

GOOD = [("0.jpg", b"a"), ("0.txt", b"t"), ("0.json", b"{}")]
LAST = [("9.png", b"z"), ("9.txt", b"t")]


def make_tar(path, members, form=tarfile.USTAR_FORMAT):
    """`members`: (name, bytes) or a TarInfo."""
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_offsets_are_those_that_tarfile_finds(drawn):
    tar = drawn / "raw/00000.tar"
    with tarfile.open(tar) as archive, tar.open("rb") as file:
        members = {m.name: m for m in archive if m.name.endswith(".png")}
        found = scan(tar)
        assert [place.member for place in found.pictures.values()] == list(members)
        assert not found.refused and not found.damage
        for place in found.pictures.values():
            assert place.offset == members[place.member].offset
            assert read_picture(file, place.member, place.offset) == archive.extractfile(place.member).read()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_of_any_form_is_read_and_its_order_does_not_matter(tmp_path, form):
    timed = tarfile.TarInfo("3.jpg")
    timed.mtime = 1700000000.25  # pax tells it in a header of its own, as webdataset's tars do
    tar = make_tar(
        tmp_path / "a.tar", [("2.txt", b"t"), ("2.jpg", b"b"), timed, ("1.webp", b"a"), ("1.json", b"")], form
    )
    found = scan(tar)
    with tarfile.open(tar) as archive:
        offsets = {m.name: m.offset_data - 512 for m in archive}
    assert {p.member: p.offset for p in found.pictures.values()} == {
        name: offsets[name] for name in ("2.jpg", "3.jpg", "1.webp")
    }
    assert list(found.pictures) == ["2", "3", "1"] and not found.refused and not found.damage


@pytest.mark.parametrize(
    ("members", "key", "detail"),
    [
        ([special("1.jpg", tarfile.SYMTYPE)], "1", "'1.jpg' is a link"),
        ([special("1.jpg", tarfile.LNKTYPE)], "1", "'1.jpg' is a link"),
        ([special("1.jpg", tarfile.DIRTYPE)], "1", "'1.jpg' is a link or special file"),
        ([special("1.jpg", tarfile.CHRTYPE)], "1", "'1.jpg' is a link or special file"),
        ([special("1.jpg", tarfile.FIFOTYPE)], "1", "'1.jpg' is a link or special file"),
        ([special("1.jpg", tarfile.GNUTYPE_SPARSE)], "1", "'1.jpg' is a link or special file"),
        ([("/1.jpg", b"x")], "1", "'/1.jpg' is no name like"),
        ([("../1.jpg", b"x")], "1", "'../1.jpg' is no name like"),
        ([("a/1.jpg", b"x")], "1", "'a/1.jpg' is no name like"),
        ([("1.pkl", b"x"), ("1.jpg", b"x")], "1", "'1.pkl' is no name like"),
        ([("1.jpg", b"x"), ("1.pyd", b"x")], "1", "'1.pyd' is no name like"),
        ([("y" * 150 + ".jpg", b"x")], f"'{'y' * 100}'", "is no name like"),
        ([("\udcff.jpg", b"x")], r"'\udcff.jpg'", r"is no name like"),
        ([("1.jpg", b"x"), ("1.jpg", b"y")], "1", "'1.jpg' is the second of its key"),
        ([("1.jpg", b"x"), ("1.png", b"y")], "1", "'1.png' is the second of its key"),
        ([("1.txt", b"x"), ("1.jpg", b"x"), ("1.txt", b"y")], "1", "'1.txt' is the second of its key"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_img2dataset_does_not_write_costs_its_sample_and_no_other(tmp_path, members, key, detail, form):
    found = scan(make_tar(tmp_path / "a.tar", GOOD + members + LAST, form))
    assert list(found.pictures) == ["0", "9"] and list(found.refused) == [key] and not found.damage
    assert found.refused[key].status == UNSAFE and detail in found.refused[key].detail


def test_an_oversize_member_costs_its_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_BYTES", 10)
    found = scan(make_tar(tmp_path / "a.tar", [*GOOD, ("1.jpg", b"x" * 11), *LAST]))
    assert list(found.pictures) == ["0", "9"]
    assert found.refused == {"1": (BROKEN, "'1.jpg' has 11 bytes, at most 10 are read")}


@pytest.mark.parametrize(
    ("keep", "keys", "byte"),
    [
        (0, [], 0),
        (300, [], 0),
        (512, [], 0),
        (700, [], 0),
        (1024, ["1"], 1024),
        (1536, ["1"], 1024),
        (2000, ["1", "2"], None),
    ],
)
def test_of_a_tar_that_was_cut_what_stands_before_the_cut_is_kept(tmp_path, keep, keys, byte):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 400), ("2.jpg", b"y" * 400)])
    tar.write_bytes(tar.read_bytes()[:keep])
    found = scan(tar)
    assert list(found.pictures) == keys and f"byte {byte if byte is not None else 2048}" in found.damage


def test_a_flipped_byte_in_a_header_ends_the_reading(tmp_path):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 400), ("2.jpg", b"y" * 400), ("3.jpg", b"z")])
    content = bytearray(tar.read_bytes())
    content[1024 + 2] ^= 1  # tarfile would read 1.jpg and stop without a word
    tar.write_bytes(content)
    assert list(scan(tar).pictures) == ["1"] and scan(tar).damage == "the tar is damaged at byte 1024: bad checksum"


@pytest.mark.parametrize("size", [2**40, 2**62, -1])
def test_a_header_that_claims_more_than_the_file_has_ends_the_reading(tmp_path, size):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("2.jpg", b"y")])
    info = tarfile.TarInfo("2.jpg")
    info.size = size
    content = bytearray(tar.read_bytes())
    content[1024:1536] = info.tobuf(tarfile.GNU_FORMAT)
    tar.write_bytes(content)
    assert list(scan(tar).pictures) == ["1"]
    assert scan(tar).damage == f"the tar ends inside the member at byte 1024, which claims {size} bytes"


def test_a_name_in_an_extended_header_counts(tmp_path):
    """Readers of pax use it: what stands in the plain header may look harmless."""
    hidden = tarfile.TarInfo("1.jpg")
    hidden.pax_headers = {"path": "../../1.jpg"}
    found = scan(make_tar(tmp_path / "a.tar", [*GOOD, hidden, *LAST], tarfile.PAX_FORMAT))
    assert list(found.pictures) == ["0", "9"] and "'../../1.jpg' is no name" in found.refused["1"].detail


def test_a_long_name_counts_whatever_extended_header_follows_it(tmp_path):
    """Of GNU's two kinds, a name's and a link's, the second does not undo the first."""
    long = tarfile.TarInfo("../" + "x" * 120)
    content = make_tar(tmp_path / "a.tar", [long], tarfile.GNU_FORMAT).read_bytes()[:1024]
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGLINK, 1
    plain = make_tar(tmp_path / "b.tar", [("1.jpg", b"x"), *LAST]).read_bytes()
    (tmp_path / "a.tar").write_bytes(content + link.tobuf(tarfile.GNU_FORMAT) + bytes(512) + plain)
    found = scan(tmp_path / "a.tar")
    assert list(found.pictures) == ["9"] and "is no name like" in next(iter(found.refused.values())).detail


def test_two_sizes_of_a_member_and_an_endless_extended_header_end_the_reading(tmp_path):
    two = tarfile.TarInfo("1.jpg")
    two.pax_headers = {"size": "4096"}
    long = tarfile.TarInfo("1.jpg")
    long.pax_headers = {"comment": "x" * 70_000}
    for member, detail in ((two, "tells two sizes"), (long, "an extended header of 7")):
        found = scan(make_tar(tmp_path / "a.tar", [*GOOD, member, *LAST], tarfile.PAX_FORMAT))
        assert list(found.pictures) == ["0"] and detail in found.damage


def test_a_tar_that_is_not_there_is_damaged(tmp_path):
    assert scan(tmp_path / "a.tar")[:2] == ({}, {}) and "No such file" in scan(tmp_path / "a.tar").damage


def test_a_tar_that_changed_since_is_noticed(tmp_path):
    tar = make_tar(tmp_path / "a.tar", [("1.jpg", b"x"), ("2.jpg", b"y")])
    with tar.open("rb") as file:
        for member, offset in (("2.jpg", 0), ("1.jpg", 512), ("1.jpg", 10**6)):
            with pytest.raises(SlamError, match=f"expected {member} at byte {offset}.*run `slam filter` again"):
                read_picture(file, member, offset)
