import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slam.data.filter.conservation import overlapping
from slam.data.filter.limits import REASONS
from slam.data.filter.manifest import MANIFEST, REJECTED, splits
from slam.data.filter.stage import filter_stage
from slam.data.records import read_raw
from slam.data.tars import scan
from slam.errors import SlamError
from tests.data.conftest import FILTER
from tests.data.test_pictures import encoded
from tests.data.test_tars import make_tar


def change(parquet, edit):
    """Rewrite a Parquet file with what `edit` makes of its rows."""
    rows = pq.read_table(parquet).to_pandas()
    pq.write_table(pa.Table.from_pandas(edit(rows), preserve_index=False), parquet)


def setting(column, row, value):
    return lambda rows: rows.assign(**{column: rows[column].where(rows.index != row, value)})


def test_every_row_is_a_survivor_or_has_one_reason(drawn, filtered):
    counts = json.loads((filtered / "counts.json").read_text())
    assert counts["rows"] == 150 == sum(counts["rejected"].values()) + counts["survivors"]
    assert tuple(counts["rejected"]) == REASONS
    rows = pd.concat([pd.read_parquet(shard.parquet) for shard in read_raw(drawn / "raw").shards])
    had = rows[rows.status == "success"]
    assert counts["rejected"]["failed_to_download"] == len(rows) - len(had) > 0
    assert counts["rejected"]["aesthetic"] == (had.aesthetic < 6).sum() > 0
    found = pd.read_parquet(filtered / "manifest.parquet")
    assert set(found.key) == set(had.key[had.aesthetic >= 6]) and len(found) == counts["survivors"]


def test_each_rejected_row_is_listed_with_its_reason(drawn, filtered):
    assert pq.read_schema(filtered / "rejected.parquet").equals(REJECTED)
    gone = pd.read_parquet(filtered / "rejected.parquet")
    rows = pd.concat([pd.read_parquet(shard.parquet) for shard in read_raw(drawn / "raw").shards]).set_index("key")
    kept = pd.read_parquet(filtered / "manifest.parquet")
    assert sorted([*gone.key, *kept.key]) == sorted(rows.index)
    assert gone.equals(gone.sort_values(["shard", "key"]))
    for row in gone.itertuples():
        if row.reason == "aesthetic":
            value, limit = row.detail.split(" < ")
            assert np.float32(value) == np.float32(rows.aesthetic[row.key]) < 6 == float(limit)
        else:
            assert row.reason == rows.status[row.key] and row.detail == rows.error_message[row.key]


def test_the_manifest_says_where_each_picture_is(drawn, filtered):
    assert pq.read_schema(filtered / "manifest.parquet").equals(MANIFEST)
    found = pd.read_parquet(filtered / "manifest.parquet")
    assert found.equals(found.sort_values(["shard", "key"]))
    for number, shard in enumerate(read_raw(drawn / "raw").shards):
        places, here = scan(shard.tar).pictures, found[found.shard == number]
        assert len(here) and all(places[row.key][:2] == (row.member, row.offset) for row in here.itertuples())


def test_nothing_else_is_left_in_the_folder(filtered):
    names = ["counts.json", "docs", "histograms.png", "manifest.parquet", "rejected.parquet"]
    assert sorted(path.name for path in filtered.iterdir()) == names


def test_the_documents_need_no_network_and_their_links_lead_somewhere(filtered):
    pages = list((filtered / "docs").rglob("*.html"))
    assert len(pages) == 1 + 3 + 3 + 1 + 1  # index, suites, shards, the table of shards, a piece of the manifest
    for page in pages:
        html = page.read_text()
        assert not re.search(r"<(?:script|img|link)\b[^>]*https?:", html)
        links = [link.partition("#")[0] for link in re.findall(r"(?:href|src)=[\"']([^\"']*)", html)]
        assert all((page.parent / link).exists() for link in links if link and not link.startswith("http"))
    index = (filtered / "docs/index.html").read_text()
    assert index.count('"passed">passed') == 5 and "failed<" not in index


def test_one_bad_shard_among_good_ones_fails_and_every_damage_is_told(raw, tmp_path):
    shards = read_raw(raw).shards
    had = list(scan(shards[1].tar).pictures)
    keys = pd.read_parquet(shards[1].parquet).key
    nan, large, twice = (int(np.flatnonzero(keys == key)[0]) for key in had[:3])
    stats = json.loads(shards[1].stats.read_text())
    shards[1].stats.write_text(json.dumps(stats | {"count": 51, "failed_to_download": 1}))

    def damage(rows):
        rows = setting("aesthetic", nan, np.nan)(setting("aesthetic", large, 77.0)(rows))
        return setting("key", twice, had[4])(rows)

    change(shards[1].parquet, damage)
    with pytest.raises(SlamError) as caught:
        filter_stage(FILTER, raw, tmp_path / "out")
    told = str(caught.value)
    for fact in (
        rf"00001: expect column values to not be null \(column aesthetic\): 1 of \d+ rows are not, e.g. key {had[0]}: "
        "None: filter.limits.aesthetic.missing = stop: give every row one",
        rf"00001: expect column values to be between .*column aesthetic.* e.g. key {had[1]}: 77.0",
        rf"00001: expect column values to be unique \(column key\): 2 of 51 rows .* key {had[4]}",
        r"all-shards: expect column pair values to be equal \(column_A failed_to_download, column_B .* shard 00001:",
    ):
        assert re.search(fact, told), fact
    assert "  00000:" not in told and "  00002:" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-failed", "raw"]
    assert sorted(path.name for path in (tmp_path / "out-failed").iterdir()) == [
        "counts.json",
        "docs",
        "histograms.png",
    ]
    assert "e.g. key" in (tmp_path / "out-failed/docs/validations/rows/00001.html").read_text()
    assert "77.0" in (tmp_path / "out-failed/docs/validations/rows/00001.html").read_text()


@pytest.mark.slow
def test_a_picture_missing_from_its_tar_costs_itself_and_a_key_of_two_shards_stops(raw, tmp_path):
    shards = read_raw(raw).shards
    had = list(scan(shards[0].tar).pictures)
    gone, picture = had[3], encoded(Image.new("RGB", (32, 32)))
    make_tar(shards[0].tar, [(f"{key}.png", picture) for key in had if key != gone])
    counts = filter_stage(FILTER, raw, tmp_path / "out")
    assert counts["rejected"]["missing"] == 1
    listed = pd.read_parquet(tmp_path / "out/rejected.parquet").query("reason == 'missing'")
    assert listed.key.tolist() == [gone] and listed.shard.tolist() == [0]
    before = (tmp_path / "out/manifest.parquet").read_bytes()

    stolen = pd.read_parquet(shards[2].parquet).key[0]
    change(shards[0].parquet, setting("key", 0, stolen))
    with pytest.raises(SlamError) as caught:
        filter_stage(FILTER, raw, tmp_path / "out")
    assert f"shard 00000: '1: {stolen}'; shard 00002: '1: {stolen}'" in str(caught.value)
    assert (tmp_path / "out/manifest.parquet").read_bytes() == before  # what was accepted before stays


@pytest.mark.slow
def test_statistics_that_cannot_be_read_are_told_and_cost_nothing(raw, tmp_path):
    read_raw(raw).shards[1].stats.write_text('{"count": 50')
    counts = filter_stage(FILTER, raw, tmp_path / "out")
    assert counts["survivors"] > 100
    assert "00001_stats.json: expected JSON" in (tmp_path / "out/docs/index.html").read_text()


@pytest.mark.slow
def test_too_few_survivors_stop_the_pipeline_and_a_later_success_removes_the_failed_documents(drawn, tmp_path):
    strict = FILTER.limits.model_copy(update={"aesthetic": FILTER.limits.aesthetic.model_copy(update={"min": 9.9})})
    with pytest.raises(SlamError, match=r"at least 50% of 150 rows to survive, found \d+; rejected: .*aesthetic \d+"):
        filter_stage(FILTER.model_copy(update={"limits": strict}), drawn / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "out-failed/docs/index.html").exists()
    filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_a_validation_split_larger_than_the_survivors_is_refused(drawn, tmp_path):
    with pytest.raises(SlamError, match="filter.validation = 150: expected more survivors than that"):
        filter_stage(FILTER.model_copy(update={"validation": 150}), drawn / "raw", tmp_path / "out")


def test_the_validation_pictures_are_those_of_the_smallest_hashes(filtered):
    rows = pd.read_parquet(filtered / "manifest.parquet")
    smallest = set(rows.sha256.sort_values()[: FILTER.validation])
    assert set(rows.sha256[rows.split == "validation"]) == smallest and len(smallest) == FILTER.validation


def test_a_picture_stays_on_its_side_when_data_is_added():
    numbers = np.random.default_rng(0).integers(0, 2**64, (1000, 2), dtype=np.uint64)
    numbers[::2, 0] = 7  # the second word decides

    def held(rows):
        last = sorted(map(tuple, rows.tolist()))[99]
        table = pa.table({"high": rows[:, 0], "low": rows[:, 1]})
        split = splits(table, last).to_pylist()
        return {tuple(row) for row, side in zip(rows.tolist(), split, strict=True) if side == "validation"}

    less, more = held(numbers[:500]), held(numbers)
    assert len(less) == len(more) == 100
    assert not (more - less) & set(map(tuple, numbers[:500].tolist()))  # trained on, it is never held out later


def test_only_shards_whose_keys_may_meet_are_compared():
    assert overlapping([["a", "c"], ["d", "f"], ["f", "g"], ["x", "x"], [None, None]]) == [1, 2]
    assert overlapping([["a", "z"], ["b", "c"], ["d", "e"]]) == [0, 1, 2]
    assert overlapping([["b", "c"], ["d", "e"], ["a", "z"], ["zz", "zz"]]) == [0, 1, 2]
    assert overlapping([["b", "c"], ["a", "a"]]) == []
