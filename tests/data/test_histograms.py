import matplotlib
import numpy as np
import pyarrow as pa
import pytest

from slam.config_data import Limits
from slam.data.filter import histograms, picture
from slam.data.filter.limits import LIMITS, values
from slam.data.records import RECORD

CHOSEN = Limits(
    aesthetic={"min": 5, "missing": "drop"},
    watermark={"max": 0.5, "missing": "keep"},
    similarity={"min": 0.2, "max": 0.4, "missing": "keep"},
)


def rows(seed, count=500):
    rng = np.random.default_rng(seed)
    scores = rng.normal(5, 4, count)  # some beyond the ends of the picture
    return pa.Table.from_pylist(
        [
            {
                "key": str(i),
                "aesthetic": None if i % 7 == 0 else score,
                "similarity": rng.uniform(0, 0.6),
                "width": int(rng.integers(1, 9000)),
                "height": 500,
                "short_side": int(rng.integers(1, 9000)),
                "caption": "x" * int(rng.integers(0, 1200)),
            }
            for i, score in enumerate(scores)
        ],
        RECORD,
    )


def counted(table, had=None):
    return histograms.count(values(table), np.ones(len(table), dtype=bool) if had is None else had, CHOSEN)


def test_the_numbers_on_each_side_of_the_cut_and_the_missing_ones_add_up():
    table = rows(0)
    found, scores = counted(table), table["aesthetic"].drop_null().to_numpy()
    score = found["aesthetic"]
    assert (score["low"], score["within"], score["high"]) == ((scores < 5).sum(), (scores >= 5).sum(), 0)
    assert score["missing"] == 500 - len(scores) == 72
    similarity = table["similarity"].to_numpy()
    ends = [(similarity < np.float32(0.2)).sum(), (similarity > np.float32(0.4)).sum()]
    assert [found["similarity"]["low"], found["similarity"]["high"]] == ends and min(ends) > 50
    for name, column in found.items():  # what lies beyond the picture's ends is in its last bins
        assert sum(column["bins"]) == column["low"] + column["within"] + column["high"] == 500 - column["missing"], name
        assert len(column["bins"]) == len(LIMITS[name].edges) - 1


def test_only_pictures_that_were_had_count():
    table = rows(1)
    had = np.arange(500) % 2 == 0
    assert counted(table, had) == counted(table.filter(pa.array(had)))


def test_shards_add_up_to_the_whole():
    tables = [rows(2), rows(3, 40), rows(4, 0)]
    assert histograms.total([counted(table) for table in tables]) == counted(pa.concat_tables(tables))


@pytest.mark.slow
def test_the_same_counts_draw_the_same_picture_and_other_cuts_another(tmp_path):
    found = counted(rows(5))
    for name, limits in (("a", CHOSEN), ("b", CHOSEN), ("c", Limits())):
        picture.draw(found, limits, tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c and a.startswith(b"\x89PNG")


def test_the_picture_does_not_depend_on_how_this_process_draws(tmp_path):
    counts = counted(rows(0))
    picture.draw(counts, CHOSEN, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 20, "font.family": "monospace", "axes.facecolor": "black"}):
        picture.draw(counts, CHOSEN, tmp_path / "styled.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_edges_ascend():
    for name, column in LIMITS.items():
        assert (np.diff(column.edges) > 0).all(), name
        assert not column.log or column.edges[0] > 0, name
