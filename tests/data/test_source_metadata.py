import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slam.config import Source
from slam.data.records import RECORD, open_pictures, read_raw, read_records
from slam.data.source import source_stage
from slam.data.sources import metadata
from slam.errors import SlamError
from slam.evaluation.reference import load_reference


def laion(count, start=0):
    rng = np.random.default_rng(start)
    score = pa.array(6 + rng.random(count), pa.float32())
    return pa.table(
        {
            "URL": [f"http://a/{start + i}.jpg" for i in range(count)],
            "TEXT": [None if i % 5 == 0 else f" picture\n{start + i} " for i in range(count)],
            "WIDTH": pa.array([np.nan if i % 7 == 0 else 600.0 + i for i in range(count)]),
            "HEIGHT": pa.array([None if i % 11 == 0 else 500.0 for i in range(count)]),
            "AESTHETIC_SCORE": score,
        }
    )


@pytest.fixture
def source(tmp_path):
    """Files of 25 rows in groups of 10, of 7 in one, and the stage for them."""
    (tmp_path / "laion").mkdir()
    pq.write_table(laion(25), tmp_path / "laion/a.parquet", row_group_size=10)
    pq.write_table(laion(7, 25), tmp_path / "laion/b.parquet")

    def make():
        config = Source(kind="metadata", path=str(tmp_path / "laion"))
        return source_stage(config, tmp_path / "raw", tmp_path / "evaluation"), read_raw(tmp_path / "raw").shards

    return tmp_path / "laion", make


def test_a_large_file_is_several_shards_and_every_row_is_a_record_of_one(source, monkeypatch):
    monkeypatch.setattr(metadata, "ROWS", 20)
    counts, shards = source[1]()
    assert counts == {"files": 2, "shards": 3, "evaluation": 0}
    assert [(shard.parquet.name, shard.groups) for shard in shards] == [
        ("a.parquet", (0, 2)),
        ("a.parquet", (2, 3)),
        ("b.parquet", (0, 1)),
    ]
    tables = [read_records(shard) for shard in shards]
    assert [len(table) for table in tables] == [20, 5, 7] and all(t.schema.equals(RECORD) for t in tables)
    rows = pa.concat_tables(tables)
    assert rows["url"].to_pylist() == [f"http://a/{i}.jpg" for i in range(32)]
    assert len(set(rows["key"].to_pylist())) == 32 and rows["key"][20].as_py() == "000010000000"
    assert set(rows["status"].to_pylist()) == {"success"}


def test_what_laion_left_empty_is_null_and_the_row_stays(source):
    first = read_records(source[1]()[1][0]).to_pylist()
    assert [row["caption"] for row in first[:3]] == [None, "picture 1", "picture 2"]
    assert (first[0]["width"], first[0]["height"], first[0]["short_side"]) == (None, None, None)
    assert (first[7]["width"], first[7]["height"]) == (None, 500)
    assert (first[1]["width"], first[1]["height"], first[1]["short_side"]) == (601, 500, 500)
    assert first[1]["watermark"] is None and 6 <= first[1]["aesthetic"] <= 7


def test_a_row_group_is_read_alone(source, monkeypatch):
    """Memory holds one shard: damage in the first row groups does not reach the reader of the last."""
    folder, make = source
    monkeypatch.setattr(metadata, "ROWS", 10)
    shards = make()[1]
    group = pq.ParquetFile(folder / "a.parquet").metadata.row_group(0)
    start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
    content = bytearray((folder / "a.parquet").read_bytes())
    content[start : start + 100] = bytes(100)
    (folder / "a.parquet").write_bytes(content)
    broken, *rest = (read_records(shard).to_pylist() for shard in shards)
    assert len(broken) == 10 and all(row["status"] == "broken" and row["url"] is None for row in broken)
    assert "expected a whole Parquet file" in broken[0]["detail"] and len({row["key"] for row in broken}) == 10
    assert [len(rows) for rows in rest] == [10, 5, 7] and all(r["status"] == "success" for rows in rest for r in rows)


def test_a_file_without_a_footer_is_one_broken_record_and_stops_no_other(source):
    folder, make = source
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-9])
    shards = make()[1]
    (broken,), whole = (read_records(shard).to_pylist() for shard in shards)
    assert broken["status"] == "broken" and "a.parquet" in broken["detail"] and len(whole) == 7


def test_columns_of_no_known_name_are_told_at_once(source):
    pq.write_table(pa.table({"link": ["a"], "TEXT": ["b"]}), source[0] / "c.parquet")
    with pytest.raises(SlamError, match="c.parquet: expected a column url .*, found link, TEXT"):
        source[1]()


def test_a_folder_without_parquet_is_told(tmp_path):
    with pytest.raises(SlamError, match="source.path = .*: expected a Parquet file or a folder"):
        source_stage(Source(kind="metadata", path=str(tmp_path / "no")), tmp_path / "raw", tmp_path / "evaluation")
    assert not (tmp_path / "raw").exists()


def test_there_are_no_pictures_and_the_message_says_how_to_get_them(source):
    with pytest.raises(SlamError, match="metadata has no pictures.*img2dataset --url_list data/filtered/manifest"):
        open_pictures(source[1]()[1][0])


def test_without_an_evaluation_set_the_evaluation_says_what_is_missing(source, tmp_path):
    source[1]()
    assert json.loads((tmp_path / "evaluation/index.json").read_text()) == {}
    with pytest.raises(SlamError, match="no evaluation set: give source.captions .* and source.images in params.yaml"):
        load_reference(tmp_path / "evaluation", 1)
