"""The kinds whose pictures are files: a folder with captions, COCO."""

import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slam.config import Source
from slam.data.pictures import decode
from slam.data.records import RECORD, open_pictures, read_raw, read_records
from slam.data.source import source_stage
from slam.data.sources import listing
from slam.errors import SlamError


@pytest.fixture
def pictures(tmp_path):
    """0.png, 1.jpg, 2.webp and below/3.PNG, of 10 + i by 20 pixels."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        image = Image.fromarray(rng.integers(0, 256, (20, 10 + i, 3), dtype=np.uint8))
        image.save(folder / name)
    return folder


NAMES = ["0.png", "1.jpg", "2.webp", "below/3.PNG"]


def listed(tmp_path, **config):
    """What the stage counts, and every record of its shards."""
    counts = source_stage(Source(**config), tmp_path / "raw", tmp_path / "evaluation")
    tables = [read_records(shard) for shard in read_raw(tmp_path / "raw").shards]
    assert all(table.schema.equals(RECORD) for table in tables)
    return counts, [row for table in tables for row in table.to_pylist()]


def metadata(rows, folder, form):
    if form == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif form == "csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), folder / "metadata.csv")
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_imagefolder_is_read_with_its_captions_and_scores(pictures, tmp_path, form):
    rows = [{"file_name": name, "text": f"picture\n{name} ", "aesthetic": 5.5 + i} for i, name in enumerate(NAMES)]
    metadata(rows, pictures, form)
    counts, found = listed(tmp_path, kind="folder", path=str(pictures))
    assert counts == {"pictures": 4, "shards": 1, "without a caption": 0, "evaluation": 0}
    assert [row["member"] for row in found] == NAMES and [row["status"] for row in found] == ["success"] * 4
    assert [row["caption"] for row in found] == [f"picture {name}" for name in NAMES]
    assert [row["aesthetic"] for row in found] == [5.5, 6.5, 7.5, 8.5] and found[0]["watermark"] is None
    assert [(r["width"], r["height"], r["short_side"]) for r in found] == [(10 + i, 20, 10 + i) for i in range(4)]
    assert [r["sha256"] for r in found] == [hashlib.sha256((pictures / n).read_bytes()).hexdigest() for n in NAMES]


def test_pictures_are_read_by_their_records(pictures, tmp_path):
    listed(tmp_path, kind="folder", path=str(pictures))
    raw = read_raw(tmp_path / "raw")
    assert raw.verbatim
    with open_pictures(raw.shards[0]) as read:
        for row in read_records(raw.shards[0], phash=True).to_pylist():
            assert decode(read(row["member"], row["offset"]), row["key"]).size == (row["width"], row["height"])
            assert isinstance(row["phash"], int)
        with pytest.raises(SlamError, match="gone.png: .*No such file.*run `slam filter` again"):
            read("gone.png", 0)


def test_a_text_beside_each_picture_is_its_caption(pictures, tmp_path):
    (pictures / "0.txt").write_text("a café\n")
    (pictures / "below/3.txt").write_text("below")
    (pictures / "1.txt").write_bytes(b"\xff\xfe")
    counts, found = listed(tmp_path, kind="folder", path=str(pictures))
    assert [(row["caption"], row["status"]) for row in found] == [
        ("a café", "success"),
        (None, "broken"),
        (None, "success"),
        ("below", "success"),
    ]
    assert found[1]["detail"] == "1.txt is not UTF-8" and counts["without a caption"] == 2


def test_metadata_of_a_folder_below_is_relative_to_it_and_pictures_that_none_names_stay(pictures, tmp_path):
    metadata([{"file_name": "3.PNG", "caption": "c"}], pictures / "below", "jsonl")
    found = listed(tmp_path, kind="folder", path=str(pictures))[1]
    assert [(row["member"], row["caption"]) for row in found] == [
        *((name, None) for name in NAMES[:3]),
        ("below/3.PNG", "c"),
    ]


def test_every_bad_file_is_a_record_with_its_reason_and_the_good_ones_are_kept(pictures, tmp_path):
    (tmp_path / "outside.png").write_bytes((pictures / "0.png").read_bytes())
    (pictures / "zero.png").touch()
    (pictures / "gif.png").write_bytes(b"GIF89a" + bytes(100))
    os.mkfifo(pictures / "pipe.png")
    bad = {
        "../outside.png": ("unsafe", "'../outside.png' is no name of a file in the folder"),
        str(tmp_path / "outside.png"): ("unsafe", "is no name of a file in the folder"),
        "a\0.png": ("unsafe", "is no name of a file in the folder"),
        "gone.png": ("missing", "gone.png is not in the folder"),
        "pipe.png": ("missing", "or no plain file"),
        "below": ("missing", "or no plain file"),
        "x" * 300 + ".png": ("broken", "File name too long"),
        "zero.png": ("broken", "zero.png: expected a whole JPEG, PNG or WebP"),
        "gif.png": ("broken", "gif.png: expected a whole JPEG, PNG or WebP"),
    }
    metadata([{"file_name": name, "text": name} for name in [*NAMES, *bad]], pictures, "jsonl")
    with (pictures / "metadata.jsonl").open("a") as file:
        file.write('{"text": "of no file"}\n')
    found = listed(tmp_path, kind="folder", path=str(pictures))[1]
    assert len(found) == len(NAMES) + len(bad) + 1
    assert [row["member"] for row in found if row["status"] == "success"] == NAMES
    for name, (status, detail) in bad.items():
        row = next(row for row in found if row["caption"] == name)
        assert row["status"] == status and detail in row["detail"], name
    assert next(row for row in found if row["caption"] == "of no file")["status"] == "unsafe"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"file_name": "0.png", "text": "a"}\n{"file_name": ', "metadata.jsonl, line 2: expected a JSON object"),
        (b'["0.png"]', "metadata.jsonl, line 1: expected a JSON object, found .*0.png"),
        (b'{"file_name": "\xff"}', "metadata.jsonl, line 1: expected a JSON object, found 'utf-8'"),
        (b'{"image": "0.png", "text": "a"}', "metadata.jsonl: expected a column file_name"),
        (b'{"file_name": "0.png", "text": "a"}\n{"file_name": 1, "text": "a"}', "expected values of one type"),
    ],
)
def test_metadata_that_cannot_be_read_is_told_by_its_line(pictures, tmp_path, content, message):
    (pictures / "metadata.jsonl").write_bytes(content)
    with pytest.raises(SlamError, match=message):
        listed(tmp_path, kind="folder", path=str(pictures))


def test_a_folder_without_pictures_and_none_at_all_are_told(tmp_path):
    with pytest.raises(SlamError, match="source.path = .*: expected pictures"):
        listed(tmp_path, kind="folder", path=str(tmp_path))
    with pytest.raises(SlamError, match="source.path = .*: expected a folder of images"):
        listed(tmp_path, kind="folder", path=str(tmp_path / "no"))


def coco(folder, path, images=NAMES, annotations=None):
    document = {
        "info": {"year": 2017},
        "images": [{"id": 10 - i, "file_name": name, "coco_url": f"http://c/{name}"} for i, name in enumerate(images)],
        "annotations": annotations
        or [
            {"image_id": 10, "id": 9, "caption": "a later one"},
            {"image_id": 10, "id": 3, "caption": "A first one.\n of two \n"},
            {"image_id": 8, "id": 4, "caption": "third"},
            {"image_id": 7, "id": 5, "caption": "fourth"},
        ],
    }
    path.write_text(json.dumps(document))
    return {"kind": "coco", "path": str(folder), "annotations": str(path)}


def test_coco_gives_each_picture_its_first_caption_by_id(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "ROWS", 3)
    config = coco(pictures, tmp_path / "captions.json")
    config |= {"captions": config["annotations"], "images": str(pictures)}  # may be the evaluation's too
    counts, found = listed(tmp_path, **config)
    assert counts == {"pictures": 4, "shards": 2, "evaluation": 4}
    assert [(row["member"], row["caption"], row["url"]) for row in found] == [
        ("below/3.PNG", "fourth", "http://c/below/3.PNG"),
        ("2.webp", "third", "http://c/2.webp"),
        ("1.jpg", None, "http://c/1.jpg"),
        ("0.png", "A first one. of two", "http://c/0.png"),
    ]
    assert [row["key"] for row in found] == ["000000000", "000000001", "000000002", "000010000"]
    assert all(row["status"] == "success" and row["member"] in NAMES for row in found)


def test_an_image_that_coco_names_and_the_folder_lacks_is_listed_as_missing(pictures, tmp_path):
    found = listed(tmp_path, **coco(pictures, tmp_path / "captions.json", [*NAMES, "gone.jpg"]))[1]
    assert [row["status"] for row in found] == ["missing", *["success"] * 4]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([{"image_id": 99, "id": 1, "caption": "x"}], "captions of its own images, found one of image 99"),
        ([{"image_id": 10, "id": 1}], "expected COCO captions .*'caption'"),
        ([{"image_id": 10, "id": 1, "caption": None}], "expected COCO captions"),
    ],
)
def test_a_document_that_is_not_coco_is_told(pictures, tmp_path, annotations, message):
    with pytest.raises(SlamError, match=message):
        listed(tmp_path, **coco(pictures, tmp_path / "captions.json", annotations=annotations))
