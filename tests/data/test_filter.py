import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slam.data.filter import MANIFEST, REASONS, conservation, filter_stage, manifest, reasons
from slam.data.records import read_raw, read_records
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
    assert counts["rejected"]["aesthetics"] == (had.aesthetic < 6).sum() > 0
    found = pd.read_parquet(filtered / "manifest.parquet")
    assert set(found.key) == set(had.key[had.aesthetic >= 6]) and len(found) == counts["survivors"]


def test_the_manifest_says_where_each_picture_is(drawn, filtered):
    assert pq.read_schema(filtered / "manifest.parquet").equals(MANIFEST)
    found = pd.read_parquet(filtered / "manifest.parquet")
    assert found.equals(found.sort_values(["shard", "key"]))
    for number, shard in enumerate(read_raw(drawn / "raw").shards):
        places, here = scan(shard.tar).pictures, found[found.shard == number]
        assert len(here) and all(places[row.key][:2] == (row.member, row.offset) for row in here.itertuples())


def test_the_documents_need_no_network_and_their_links_lead_somewhere(filtered):
    pages = list((filtered / "docs").rglob("*.html"))
    assert len(pages) == 1 + 2 + 3 + 1  # index, two suites, three shards, the table of shards
    for page in pages:
        html = page.read_text()
        assert not re.search(r"<(?:script|img|link)\b[^>]*https?:", html)
        links = [link.partition("#")[0] for link in re.findall(r"href=[\"']([^\"']*)", html)]
        assert all((page.parent / link).exists() for link in links if link and not link.startswith("http"))
    index = (filtered / "docs/index.html").read_text()
    assert index.count("passed</td>") + index.count('"passed">passed') == 4


@pytest.mark.slow
def test_the_same_data_gives_the_same_manifest(drawn, filtered, tmp_path):
    filter_stage(FILTER, drawn / "raw", tmp_path / "again")
    assert (tmp_path / "again/manifest.parquet").read_bytes() == (filtered / "manifest.parquet").read_bytes()


def test_one_bad_shard_among_good_ones_fails_and_every_damage_is_told(raw, tmp_path):
    shards = read_raw(raw).shards
    had = list(scan(shards[1].tar).pictures)
    keys = pd.read_parquet(shards[1].parquet).key
    nan, large, twice, odd = (int(np.flatnonzero(keys == key)[0]) for key in had[:4])

    def damage(rows):
        rows = setting("aesthetic", nan, np.nan)(setting("aesthetic", large, 77.0)(rows))
        rows = setting("status", odd, "odd")(setting("key", twice, had[4])(rows))
        return rows.drop(index=40)

    change(shards[1].parquet, damage)
    with pytest.raises(SlamError) as caught:
        filter_stage(FILTER, raw, tmp_path / "out")
    told = str(caught.value)
    for fact in (
        rf"00001: expect column values to not be null \(column aesthetic\): 1 of 49 rows are not, e.g. key {had[0]}",
        rf"00001: expect column values to be between .*column aesthetic.* e.g. key {had[1]}: 77.0",
        rf"00001: expect column values to be unique \(column key\): 2 of 49 rows .* key {had[4]}",
        rf"00001: expect column values to be in set \(column status, .* e.g. key {had[3]}: 'odd'",
        r"all-shards: expect column pair values to be equal \(column_A rows, column_B count in stats\).*\[49, 50\]",
    ):
        assert re.search(fact, told), fact
    assert "00000:" not in told and "00002:" not in told
    assert not (tmp_path / "out").exists()
    assert "77.0" in next((tmp_path / "out-failed/docs").rglob("*00001.html")).read_text()


@pytest.mark.slow
def test_a_picture_missing_from_its_tar_and_a_key_of_two_shards_are_found_out(raw, tmp_path):
    shards = read_raw(raw).shards
    had = list(scan(shards[0].tar).pictures)
    gone, picture = had[3], encoded(Image.new("RGB", (32, 32)))
    make_tar(shards[0].tar, [(f"{key}.png", picture) for key in had if key != gone])
    stolen = had[0]
    change(shards[2].parquet, setting("key", 0, stolen))
    with pytest.raises(SlamError) as caught:
        filter_stage(FILTER, raw, tmp_path / "out")
    assert f"e.g. shard 00000: '1: {gone}'" in str(caught.value)
    assert f"shard 00000: '1: {stolen}'; shard 00002: '1: {stolen}'" in str(caught.value)


@pytest.mark.slow
def test_too_few_survivors_stop_the_pipeline_and_a_later_success_removes_the_failed_documents(drawn, tmp_path):
    with pytest.raises(SlamError, match=r"at least 50% of 150 rows to survive, found \d+; rejected: .*aesthetics \d+"):
        filter_stage(FILTER.model_copy(update={"aesthetics": 9.9}), drawn / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "out-failed/docs/index.html").exists()
    filter_stage(FILTER, drawn / "raw", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.slow
def test_a_validation_split_larger_than_the_survivors_is_refused(drawn, tmp_path):
    with pytest.raises(SlamError, match="filter.validation = 150: expected more survivors than that"):
        filter_stage(FILTER.model_copy(update={"validation": 150}), drawn / "raw", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"status": "failed_to_download"}, "failed_to_download"),
        ({"status": "failed_to_resize"}, "failed_to_resize"),
        ({"aesthetic": 5.99}, "aesthetics"),
        ({"aesthetic": np.nan}, "aesthetics"),
        ({"short_side": 31.0}, "short_side"),
        ({"short_side": np.nan}, "short_side"),
        ({"width": 97.0}, "aspect"),
        ({"height": 97.0}, "aspect"),
        ({"width": 96.0}, ""),
        ({"caption": " ab "}, "caption"),
        ({"caption": None}, "caption"),
        ({"status": "failed_to_resize", "aesthetic": 1.0}, "failed_to_resize"),  # the first reason counts
    ],
)
def test_each_reason(change, reason):
    good = {"status": "success", "aesthetic": 6.0, "width": 32.0, "height": 32.0, "short_side": 32.0, "caption": "abc"}
    assert list(reasons(pd.DataFrame([good, good | change, good]), FILTER)) == ["", reason, ""]


@pytest.mark.slow
def test_of_exact_duplicates_the_first_stays(raw, tmp_path):
    shards = read_raw(raw).shards
    first = pd.read_parquet(shards[0].parquet).query("status == 'success' and aesthetic >= 6").iloc[0]
    rows = pd.read_parquet(shards[2].parquet)
    row = int(np.flatnonzero((rows.status == "success") & (rows.aesthetic >= 6))[0])
    change(shards[2].parquet, setting("sha256", row, first.sha256))
    assert filter_stage(FILTER, raw, tmp_path / "out")["rejected"]["duplicate"] == 1
    kept = pd.read_parquet(tmp_path / "out/manifest.parquet").key
    assert first.key in set(kept) and rows.key[row] not in set(kept)


def test_broken_statistics_are_named(raw):
    shard = read_raw(raw).shards[1]
    rows = read_records(shard).to_pandas()
    cases = {
        '{"count": 50': "expected JSON",
        '{"count": 50}': "expected the numbers count, successes",
        "[]": "found ..",
    }
    for broken, message in cases.items():
        shard.stats.write_text(broken)
        with pytest.raises(SlamError, match=f"00001_stats.json: .*{message}"):
            conservation(shard, rows)


def test_the_validation_split_is_exact_and_stays_when_data_is_added():
    hashes = [f"{i:064x}" for i in np.random.default_rng(0).permutation(1000)]
    rows = pd.DataFrame({"sha256": hashes}).assign(
        shard=0, key=[str(i) for i in range(1000)], caption="c", width=1, height=1, aesthetic=6.0, member="m", offset=0
    )
    less, more = (manifest(rows[:n].reset_index(drop=True), 100).to_pandas() for n in (500, 1000))
    held = [set(found.sha256[found.split == "validation"]) for found in (less, more)]
    assert len(held[0]) == len(held[1]) == 100
    assert not held[1] & set(less.sha256[less.split == "train"])  # what was trained on is never held out later
