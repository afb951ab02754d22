import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slam.data.columns import read_columns
from slam.data.records import RECORD, read_raw, read_records
from slam.data.sources.img2dataset import NEEDED, NO_ROW
from slam.errors import SlamError


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


@pytest.mark.parametrize("name", ["AESTHETIC_SCORE", "aesthetic_score_laion_v2", "Aesthetic"])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.string()])
def test_scores_of_other_names_and_types_are_read(raw, name, kind):
    parquet = read_raw(raw).shards[0].parquet
    table = pq.read_table(parquet)
    wanted = table["aesthetic"].to_numpy()
    pq.write_table(
        table.rename_columns({"aesthetic": name}).set_column(0, name, table["aesthetic"].cast(kind)), parquet
    )
    assert np.allclose(read_columns(parquet, NEEDED)["aesthetic"].to_numpy(), wanted, atol=1e-6)


def test_sizes_left_empty_are_taken_from_laions_columns_and_the_least_side_counts(raw):
    parquet = read_raw(raw).shards[0].parquet
    table = pq.read_table(parquet).slice(0, 3)
    sizes = {"original_width": [600, None, 600], "original_height": [700, None, 700]}
    sizes |= {"width": [256, None, 800], "height": [256, None, 900]}
    sizes |= {"WIDTH": [1.0, 500.0, 1.0], "HEIGHT": [1.0, 400.0, 1.0]}
    for name, values in sizes.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, pa.array(values))
    pq.write_table(table, parquet)
    rows = read_columns(parquet, NEEDED)
    assert rows["width"].to_pylist() == [600, 500, 600] and rows["height"].to_pylist() == [700, 400, 700]
    assert rows["short_side"].to_pylist() == [256, 400, 600]


@pytest.mark.parametrize("column", ["url", "status", "caption"])
def test_a_missing_column_is_named_with_what_was_found(raw, column):
    parquet = read_raw(raw).shards[0].parquet
    pq.write_table(pq.read_table(parquet).drop_columns([column]), parquet)
    with pytest.raises(SlamError, match=rf"00000.parquet: expected a column {column}.*found .*sha256"):
        read_columns(parquet, NEEDED)


def test_a_score_that_is_no_number_is_named(raw):
    parquet = read_raw(raw).shards[0].parquet
    pq.write_table(pq.read_table(parquet).set_column(0, "aesthetic", pa.array(["good"] * 50)), parquet)
    with pytest.raises(SlamError, match="00000.parquet: column aesthetic: expected float, found .*string.*good"):
        read_columns(parquet, NEEDED)
