import gc

import pyarrow as pa
import pytest
import yaml

from slam.config_data import Filter, Limits
from slam.data.filter.stage import filter_stage
from slam.data.records import RECORD
from slam.data.validation.expectations import check
from slam.data.validation.further import further
from slam.data.validation.suites import SUITES, rows
from slam.errors import SlamError
from tests.data.conftest import FILTER

COLUMNS = {"rows": RECORD.names, "manifest": ["key", "caption", "url"]}
GOOD = {
    "key": "a",
    "status": "success",
    "caption": "abc",
    "width": 32,
    "height": 32,
    "short_side": 32,
    "aesthetic": 6.0,
    "sha256": "0" * 64,
}


def problems(config, *changes):
    found = [GOOD | {"key": str(number)} | change for number, change in enumerate(changes)]
    return check("rows", rows(config), "00000", pa.Table.from_pylist(found, RECORD), "key").problems


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": "0"}, "be unique (column key): 2 of 3 rows are not, e.g. key 0: '0'; key 0: '0'"),
        ({"status": "odd"}, "be in set (column status"),
        (
            {"aesthetic": 77.0},
            "column aesthetic, min_value -2.0, max_value 12.0): 1 of 3 rows are not, e.g. key 1: 77.0",
        ),
        ({"watermark": 1.5}, "column watermark"),
        ({"nsfw": -0.5}, "column nsfw"),
        ({"similarity": 2.0}, "column similarity"),
        ({"width": 0}, "column width"),
        ({"height": -1}, "column height"),
        ({"sha256": "A" * 64}, "match regex (column sha256"),
    ],
)
def test_each_mistake_in_a_row_is_found_and_named(change, told):
    found = problems(FILTER, {}, change, {})
    assert len(found) == 1 and found[0].startswith("00000: expect column values to ") and told in found[0]


def test_good_rows_and_rows_without_a_picture_pass():
    lost = dict.fromkeys(("aesthetic", "width", "height", "short_side", "sha256", "caption"))
    assert problems(FILTER, {}, lost | {"status": "failed_to_download"}, lost | {"status": "broken"}) == []


def test_a_missing_value_stops_only_where_the_limit_says_so():
    for missing, stops in (("stop", True), ("drop", False), ("keep", False)):
        limits = Limits(watermark={"max": 0.5, "missing": missing})
        found = problems(Filter(limits=limits, survivors=0, validation=1), {"watermark": 0.0}, {})
        assert bool(found) == stops
    stop = Filter(limits=Limits(watermark={"max": 0.5, "missing": "stop"}), survivors=0, validation=1)
    (told,) = problems(stop, {"watermark": 0.0}, {}, {"status": "missing"})
    assert "1 of 2 rows are not, e.g. key 1: None: filter.limits.watermark.missing = stop" in told


def write(path, document):
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_a_users_expectations_are_added(drawn, tmp_path):
    words = {"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "caption", "regex": "a large red"}}
    file = write(tmp_path / "own.yaml", {"manifest": [words | {"notes": "no red"}]})
    with pytest.raises(
        SlamError, match=r"manifest-000000000: .*not match regex .*rows are not, .*a large red.*: no red"
    ):
        filter_stage(FILTER.model_copy(update={"expectations": str(file)}), drawn / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_library_leaves_garbage_collection_as_it_was():
    assert gc.isenabled() and gc.get_freeze_count() > 0


def test_without_a_file_nothing_is_added():
    assert further(None, COLUMNS) == {"rows": [], "manifest": []}


NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "url"}}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("rows: [", "expected YAML"),
        ([NULL], "expected the form {rows:"),
        ({"rows": NULL}, "expected the form"),
        ({"row": [NULL]}, "'row' is no suite: expected rows"),
        ({"rows": [NULL | {"type": "expect_column_to_shine"}]}, r"rows\[0\]: .*expect_column_to_shine is none of"),
        (
            {"rows": [NULL | {"kwargs": {"column": "urll"}}]},
            r"rows\[0\]: 'urll' is no column of rows: did you mean url\?",
        ),
        (
            {"manifest": [NULL, NULL | {"kwargs": {"column": "nsfw"}}]},
            r"manifest\[1\]: 'nsfw' is no column of manifest",
        ),
        ({"rows": [NULL | {"kwargs": {}}]}, r"rows\[0\]: .*expected other kwargs than {}"),
        ({"rows": [NULL | {"kwargs": {"column": "url", "least": 3}}]}, "expected other kwargs than .*least"),
        (
            {"rows": [{"type": "expect_column_values_to_not_be_null"}]},
            "expected the keys type, kwargs and perhaps notes",
        ),
        ({"rows": [NULL | {"columns": "url"}]}, "expected the keys type, kwargs"),
    ],
)
def test_a_mistake_in_the_users_file_is_named(document, told, tmp_path):
    with pytest.raises(SlamError, match=f"own.yaml: .*{told}|own.yaml: {told}"):
        further(write(tmp_path / "own.yaml", document), COLUMNS)
    with pytest.raises(SlamError, match="nowhere.yaml: No such file"):
        further(tmp_path / "nowhere.yaml", COLUMNS)


def test_our_own_suites_have_the_form_of_a_users(tmp_path):
    own = {name: SUITES[name](FILTER) for name in ("rows", "manifest")}
    columns = {"rows": RECORD.names, "manifest": ["shard", "key", "caption", "split", "aesthetic", "sha256"]}
    assert further(write(tmp_path / "own.yaml", own), columns) == own
