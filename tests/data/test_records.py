import pyarrow.parquet as pq

from slam.data.records import RECORD, read_raw, read_records
from slam.data.sources.img2dataset import NO_ROW


def test_every_row_asked_for_is_a_record(drawn):
    for shard in read_raw(drawn / "raw").shards:
        found = read_records(shard)
        rows = pq.read_table(shard.parquet)
        assert found.schema.equals(RECORD) and found["phash"].null_count == len(found)
        for name in ("key", "url", "caption", "status", "sha256", "width"):
            assert found[name].to_pylist() == rows[name].to_pylist()
        assert (found["member"].null_count, found["offset"].null_count) == (len(rows) - _had(rows),) * 2


def _had(rows):
    return rows["status"].to_pylist().count("success")


def test_a_perceptual_hash_is_there_when_asked_for(drawn):
    found = read_records(read_raw(drawn / "raw").shards[0], phash=True)
    assert found["phash"].null_count == len(found) - _had(found) and len(found["phash"].unique()) > 40


def test_a_cut_parquet_costs_its_shard_and_every_picture_of_it_is_listed(raw):
    shard = read_raw(raw).shards[0]
    had = [row["key"] for row in read_records(shard).to_pylist() if row["status"] == "success"]
    shard.parquet.write_bytes(shard.parquet.read_bytes()[:-100])
    found = read_records(shard).to_pylist()
    assert [row["key"] for row in found] == had
    assert all(row["status"] == "broken" and "expected a whole Parquet file" in row["detail"] for row in found)
    shard.tar.unlink()
    assert [(row["key"], row["status"]) for row in read_records(shard).to_pylist()] == [("00000", "broken")]


def test_a_picture_without_a_row_and_a_row_without_a_picture_are_listed(raw):
    shards = read_raw(raw).shards
    shards[0].tar.write_bytes(shards[1].tar.read_bytes())
    found = read_records(shards[0]).to_pandas()
    had = [[r["key"] for r in pq.read_table(s.parquet).to_pylist() if r["status"] == "success"] for s in shards[:2]]
    assert list(found.key[found.status == "missing"]) == had[0]
    assert list(found.key[found.detail == NO_ROW]) == had[1] and (found.status != "success").all()
