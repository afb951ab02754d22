import numpy as np
import pyarrow as pa
import pytest

from slam.config_data import Filter, Limits
from slam.data.filter.limits import LIMITS, REASONS, STAYS, rejected, values, verdicts
from slam.data.records import RECORD, STATUS

GOOD = {
    "key": "k",
    "status": "success",
    "caption": "abc",
    "width": 32,
    "height": 32,
    "short_side": 32,
    "aesthetic": 6.0,
    "watermark": 0.5,
    "nsfw": 0.0,
    "similarity": 0.3,
}
ALL = {
    "aesthetic": {"min": 6, "missing": "drop"},
    "short_side": {"min": 32, "missing": "drop"},
    "aspect": {"max": 3, "missing": "drop"},
    "watermark": {"max": 0.5, "missing": "keep"},
    "nsfw": {"max": 0.3, "missing": "drop"},
    "similarity": {"min": 0.3, "max": 0.9, "missing": "keep"},
    "caption": {"min": 3, "missing": "drop"},
}


def found(change, limits=ALL):
    """The reason and the detail of one row among good ones."""
    rows = pa.Table.from_pylist([GOOD, GOOD | change, GOOD], RECORD)
    columns, chosen = values(rows), Limits(**limits)
    codes = verdicts(rows["status"], columns, chosen)
    assert codes[0] == codes[2] == STAYS
    listed = rejected(rows, columns, codes, chosen).to_pylist()
    assert [row["reason"] for row in listed] == ([] if codes[1] == STAYS else [REASONS[codes[1]]])
    return (listed[0]["reason"], listed[0]["detail"]) if listed else None


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"status": "failed_to_download", "detail": "404"}, "failed_to_download", "404"),
        ({"status": "broken", "detail": "no JPEG"}, "broken", "no JPEG"),
        ({"aesthetic": 5.75}, "aesthetic", "5.75 < 6.0"),
        ({"aesthetic": None}, "aesthetic missing", None),
        ({"short_side": 31}, "short_side", "31 < 32.0"),
        ({"short_side": None}, "short_side missing", None),
        ({"width": 128}, "aspect", "4 > 3.0"),
        ({"height": 128}, "aspect", "4 > 3.0"),
        ({"height": None}, "aspect missing", None),
        ({"watermark": 0.75}, "watermark", "0.75 > 0.5"),
        ({"nsfw": 0.5}, "nsfw", "0.5 > 0.3"),
        ({"similarity": 0.25}, "similarity", "0.25 < 0.3"),
        ({"similarity": 1.0}, "similarity", "1 > 0.9"),
        ({"caption": "東京"}, "caption", "2 < 3.0"),  # characters, not bytes
        ({"caption": ""}, "caption", "0 < 3.0"),
        ({"caption": None}, "caption missing", None),
        ({"aesthetic": 1.0, "nsfw": 1.0, "caption": None}, "aesthetic", "1 < 6.0"),  # the first in the order of LIMITS
        ({"status": "unsafe", "detail": "a link", "aesthetic": 1.0}, "unsafe", "a link"),
    ],
)
def test_each_reason(change, reason, detail):
    assert found(change) == (reason, detail)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 96},  # the ends belong to the limit
        {"watermark": 0.0},  # a value, not a missing one
        {"watermark": None},
        {"similarity": None},
        {"nsfw": 0.3},  # as float32 more than 0.3, were it compared with a double
    ],
)
def test_what_stays(change):
    assert found(change) is None


def test_a_limit_that_is_left_out_is_off():
    bad = {
        "aesthetic": 0.0,
        "short_side": 1,
        "width": 900,
        "watermark": 1.0,
        "nsfw": 1.0,
        "similarity": 0,
        "caption": "",
    }
    assert found(bad) is not None and found(bad, {}) is None
    for name in LIMITS:
        assert found(bad, {name: ALL[name]})[0] == name


def test_a_zero_is_dropped_by_a_least_value_and_a_missing_one_by_its_policy():
    limit = {"watermark": {"min": 0.1, "missing": "keep"}}
    assert found({"watermark": 0.0}, limit)[0] == "watermark" and found({"watermark": None}, limit) is None
    limit = {"watermark": {"max": 0.5, "missing": "drop"}}
    assert found({"watermark": 0.0}, limit) is None and found({"watermark": None}, limit)[0] == "watermark missing"


def test_the_table_the_config_and_the_reasons_are_of_one_order():
    assert list(Limits.model_fields) == list(LIMITS)
    order = [reason for reason in REASONS if reason in LIMITS]
    assert order == list(LIMITS) and REASONS[: len(STATUS) - 1] == STATUS[1:]
    assert REASONS[-4:] == ("removal", "evaluation", "duplicate", "near duplicate")
    assert Filter(survivors=0, validation=1).limits == Limits()


def test_every_row_of_many_gets_the_reason_that_a_plain_loop_finds():
    rng = np.random.default_rng(0)
    choices = {
        "status": ["success"] * 9 + ["missing"],
        "aesthetic": [None, 5.0, 6.0, 7.0],
        "short_side": [None, 16, 32, 64],
        "width": [None, 32, 64],
        "height": [32, 200],
        "watermark": [None, 0.0, 0.4, 0.6],
        "nsfw": [None, 0.0, 0.4],
        "similarity": [None, 0.2, 0.5],
        "caption": [None, "", "ab", "abc"],
    }
    rows = [GOOD | {name: some[rng.integers(len(some))] for name, some in choices.items()} for _ in range(2000)]
    table = pa.Table.from_pylist(rows, RECORD)
    codes = verdicts(table["status"], values(table), Limits(**ALL))
    assert ["" if code == STAYS else REASONS[code] for code in codes] == [plain(row) for row in rows]
    assert len(set(codes)) > 10


def plain(row):
    if row["status"] != "success":
        return row["status"]
    sides = (row["width"], row["height"])
    row = row | {"aspect": None if None in sides else max(sides) / min(sides)}
    row["caption"] = None if row["caption"] is None else len(row["caption"])
    for name, limit in ALL.items():
        if row[name] is None:
            if limit["missing"] == "drop":
                return f"{name} missing"
        elif not limit.get("min", -1e9) <= row[name] <= limit.get("max", 1e9):
            return name
    return ""
