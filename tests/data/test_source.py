import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slam.config import Source
from slam.data.pictures import decode
from slam.data.records import open_pictures, read_raw, read_records
from slam.data.source import source_stage
from slam.data.sources.shapes import SCHEMA
from slam.data.tars import scan
from slam.errors import SlamError
from tests.data.conftest import SOURCE


def test_the_same_seed_gives_the_same_bytes(drawn, tmp_path):
    source_stage(SOURCE, tmp_path / "raw", tmp_path / "evaluation")
    for folder in ("raw", "evaluation"):
        files = sorted(p.relative_to(drawn) for p in (drawn / folder).rglob("*") if p.is_file())
        assert files == sorted(p.relative_to(tmp_path) for p in (tmp_path / folder).rglob("*") if p.is_file())
        assert all((drawn / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_the_parquet_has_img2datasets_columns_and_a_row_for_every_picture_asked_for(drawn):
    for shard in read_raw(drawn / "raw").shards:
        assert pq.read_schema(shard.parquet).equals(SCHEMA)
        rows, stats = pd.read_parquet(shard.parquet), json.loads(shard.stats.read_text())
        assert len(rows) == stats["count"] == stats["successes"] + stats["failed_to_download"]
        had = rows[rows.status == "success"]
        assert sorted(had.key) == list(scan(shard.tar).pictures)
        assert rows.key.str.fullmatch(rf"{shard.name}\d\d").all()  # img2dataset: the shard, then digits for 50 rows
        assert rows[rows.status != "success"][["width", "sha256"]].isna().all(axis=None)


def test_some_downloads_failed(drawn):
    status = pd.concat([pd.read_parquet(shard.parquet) for shard in read_raw(drawn / "raw").shards]).status
    assert 0 < (status == "failed_to_download").sum() < 10


def test_a_shard_gives_back_the_bytes_that_sha256_was_taken_of(drawn):
    shard = read_raw(drawn / "raw").shards[1]
    rows = read_records(shard).to_pandas().query("status == 'success'")
    with open_pictures(shard) as read:
        for row in rows.itertuples():
            content = read(row.member, row.offset)
            assert hashlib.sha256(content).hexdigest() == row.sha256
            assert decode(content, row.key).size == (row.width, row.height)


def test_evaluation_is_coco_and_shares_no_picture_with_training(drawn):
    told = json.loads((drawn / "evaluation/captions.json").read_text())
    assert [a["image_id"] for a in told["annotations"]] == [i["id"] for i in told["images"]] == list(range(20))
    evaluation = {_pixels(Image.open(drawn / "evaluation/images" / i["file_name"])) for i in told["images"]}
    training = set()
    for shard in read_raw(drawn / "raw").shards:
        with open_pictures(shard) as read:
            for place in scan(shard.tar).pictures.values():
                training.add(_pixels(decode(read(place.member, place.offset), place.member)))
    assert len(evaluation) == 20 and len(training) > 140 and not evaluation & training


def _pixels(image):
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


@pytest.fixture
def foreign(raw, tmp_path):
    (raw / "index.json").unlink()
    (tmp_path / "captions.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    (tmp_path / "images").mkdir()
    places = {"path": raw, "captions": tmp_path / "captions.json", "images": tmp_path / "images"}
    return Source(kind="img2dataset", **{key: str(place) for key, place in places.items()})


def test_img2dataset_shards_are_named_and_not_copied(foreign, raw, tmp_path):
    source_stage(foreign, tmp_path / "out", tmp_path / "evaluation")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["index.json"]
    found = read_raw(tmp_path / "out")
    assert [shard.tar for shard in found.shards] == [raw / f"0000{i}.tar" for i in range(3)] and not found.verbatim
    assert json.loads((tmp_path / "evaluation/index.json").read_text()) == {
        "captions": foreign.captions,
        "images": foreign.images,
    }


def test_an_incomplete_shard_is_named(foreign, raw, tmp_path):
    (raw / "00001_stats.json").unlink()
    with pytest.raises(SlamError, match="1 are missing: .*00001_stats.json.*incremental"):
        source_stage(foreign, tmp_path / "out", tmp_path / "evaluation")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[]", "source.captions.*`images` and `annotations`"),
        (b"PAR1\x92", "captions.json: expected captions in COCO's form, JSON, found .*: get it whole"),
        (b'{"images": [', "captions.json: expected captions in COCO's form, JSON, found Expecting value"),
    ],
)
def test_captions_that_are_not_coco_are_refused(content, told, foreign, tmp_path):
    (tmp_path / "captions.json").write_bytes(content)
    with pytest.raises(SlamError, match=told):
        source_stage(foreign, tmp_path / "out", tmp_path / "evaluation")
