import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slam.data.columns import NAMES, SCORES, TYPES, ParquetError, named, read_columns
from slam.errors import SlamError

LAION = {"URL": "u", "TEXT": "c", "WIDTH": 640.0, "HEIGHT": 480.0, "similarity": 0.3, "punsafe": 0.1}
LAION |= {"pwatermark": 0.2, "AESTHETIC_SCORE": 6.5, "hash": 1, "__index_level_0__": 2}
EN_AESTHETIC = {"URL": "u", "TEXT": "c", "WIDTH": 640.0, "HEIGHT": 480.0, "similarity": 0.3, "punsafe": 0.1}
EN_AESTHETIC |= {"pwatermark": 0.2, "aesthetic": 6.5, "hash": 1, "language": "nolang"}
COYO = {"id": 1, "url": "u", "text": "c", "width": 640, "height": 480, "clip_similarity_vitb32": 0.3}
COYO |= {"clip_similarity_vitl14": 0.9, "nsfw_score_opennsfw2": 0.1, "nsfw_score_gantman": 0.9}
COYO |= {"watermark_score": 0.2, "aesthetic_score_laion_v2": 6.5, "num_faces": 0}
OURS = {"url": "u", "caption": "c", "width": 640, "height": 480, "similarity": 0.3, "nsfw": 0.1}
OURS |= {"watermark": 0.2, "aesthetic": 6.5}


@pytest.mark.parametrize("row", [LAION, EN_AESTHETIC, COYO, OURS])
def test_each_publishers_columns_are_found(row, tmp_path):
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    found = read_columns(tmp_path / "a.parquet", ("url", "caption")).to_pylist()[0]
    wanted = {"url": "u", "caption": "c", "width": 640, "height": 480, "short_side": 480}
    assert {name: found[name] for name in wanted} == wanted
    scores = [round(found[score], 6) for score in ("aesthetic", "watermark", "nsfw", "similarity")]
    assert scores == [6.5, 0.2, 0.1, 0.3]


number = st.none() | st.floats(width=32) | st.integers(-(2**40), 2**40).map(float)
kinds = st.sampled_from([pa.float32(), pa.float64(), pa.string()])


@settings(deadline=None)
@given(st.data())
def test_any_alias_in_any_case_and_type_gives_the_same_numbers(data):
    """Round trip: what a column of any name and type says is what comes out, in float32 or int32, or null."""
    for ours in (*SCORES, "width"):
        alias = data.draw(st.sampled_from(NAMES[ours]))
        name = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in alias)
        values = data.draw(st.lists(number, max_size=5))
        kind = data.draw(kinds)
        if name.lower() == "nsfw":
            kind = pa.float64()  # as text it is no score
        stored = pa.array(values, pa.float64()).cast(pa.float32() if kind == pa.float32() else pa.float64(), safe=False)
        table = pa.table({name: stored.cast(kind), "other": pa.nulls(len(values))})
        found = named(table, (), "here")[ours].to_pylist()
        meant = [None if v is None or not math.isfinite(v) else v for v in stored.to_pylist()]
        if ours == "width":
            assert found == [None if v is None or abs(v) >= 2**31 else int(v) for v in meant]
        else:
            with np.errstate(over="ignore"):
                assert found == [v if v is None else float(np.float32(v)) for v in meant]


@settings(deadline=None)
@given(st.lists(st.none() | st.text(), max_size=5))
def test_a_caption_comes_out_stripped_and_on_one_line_with_its_words_unchanged(captions):
    found = named(pa.table({"text": pa.array(captions, pa.string())}), (), "here")["caption"].to_pylist()
    for before, after in zip(captions, found, strict=True):
        assert (before is None) == (after is None)
        if before is not None:
            assert after.split() == before.split()
            assert after == after.strip(" \n\t") and not set(after) & set("\n\r\t\x0b\x0c\x85\u2028\u2029")


def test_sizes_left_empty_are_taken_from_laions_columns_and_the_least_side_counts():
    sizes = {"original_width": [600, None, 600], "original_height": [700, None, 700]}
    sizes |= {"width": [256, None, 800], "height": [256, None, 900]}
    sizes |= {"WIDTH": [1.0, 500.0, 1.0], "HEIGHT": [1.0, 400.0, 1.0]}
    rows = named(pa.table(sizes), (), "here")
    assert rows["width"].to_pylist() == [600, 500, 600] and rows["height"].to_pylist() == [700, 400, 700]
    assert rows["short_side"].to_pylist() == [256, 400, 600]


def test_the_verdict_in_words_of_laion_2b_is_no_score():
    rows = named(pa.table({"NSFW": ["UNLIKELY", "NSFW"], "punsafe": [0.5, None]}), (), "here")
    assert rows["nsfw"].to_pylist() == [0.5, None]


def test_a_score_that_no_column_tells_is_null():
    rows = named(pa.table({"url": ["u"], "caption": ["c"]}), ("url", "caption"), "here")
    assert set(rows.column_names) == {*NAMES, "short_side"}
    assert all(rows[name].to_pylist() == [None] for name in TYPES if name not in ("url", "caption"))


def test_text_that_is_not_utf8_is_null_and_costs_no_other_row(tmp_path):
    table = pa.table({"url": ["a", "b"], "text": pa.array([b"good", b"\xff\xfe"], pa.binary())})
    pq.write_table(table, tmp_path / "binary.parquet")
    claimed = pa.Array.from_buffers(pa.string(), 2, table["text"].chunk(0).buffers())  # says that it is UTF-8
    pq.write_table(table.set_column(1, "text", claimed), tmp_path / "string.parquet")
    for name in ("binary", "string"):
        assert read_columns(tmp_path / f"{name}.parquet", ("caption",))["caption"].to_pylist() == ["good", None]


@pytest.mark.parametrize("column", ["url", "caption"])
def test_a_missing_column_is_named_with_what_was_found(column):
    table = pa.table({"url": ["u"], "caption": ["c"], "more": [1]}).drop_columns([column])
    with pytest.raises(SlamError, match=rf"here: expected a column {column}.* \(in any case\), found .*more"):
        named(table, ("url", "caption"), "here")


def test_a_score_that_is_no_number_and_two_columns_of_one_name_are_told():
    with pytest.raises(SlamError, match="here: column aesthetic: expected float, found string.*good"):
        named(pa.table({"aesthetic": ["6.5", "good"]}), (), "here")
    with pytest.raises(SlamError, match="expected columns of different names, found url, url"):
        named(pa.table([["a"], ["b"]], ["url", "url"]), (), "here")


def test_a_file_that_cannot_be_read_tells_the_rows_that_it_promised(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": [f"{i}" for i in range(1000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    for damaged, rows in ((content, 1000), (content[:-9], 0), (b"", 0), (b"PAR1", 0)):
        path.write_bytes(damaged)
        with pytest.raises(ParquetError, match="a.parquet: expected a whole Parquet file") as caught:
            read_columns(path, ("url",))
        assert caught.value.rows == rows
