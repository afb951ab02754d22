"""Duplicates, near duplicates, removal and decontamination over shards, against a plain loop over the rows."""

import errno
import hashlib
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slam.config import Filter
from slam.data.filter import lists, repeats
from slam.data.filter.lists import Evaluation
from slam.data.filter.sift import PASSED, part, passed
from slam.data.pictures import decode, phash
from slam.data.records import RECORD
from slam.errors import SlamError
from tests.data.test_pictures import encoded


def digest(word):
    return hashlib.sha256(str(word).encode()).hexdigest()


def row(key, picture=None, url=None, phash=0):
    sha256 = None if picture is None else digest(picture)
    return {"key": key, "sha256": sha256, "url": url, "phash": phash, "status": "success"}


def gone(tmp_path, shards, listed=(), shown=None, **config):
    """{(shard, key): (reason, detail)} of the rows of `shards` that go."""
    chosen = Filter(survivors=0, validation=1, **config)
    if shown is not None:
        chosen = chosen.model_copy(update={"decontaminate": "pictures"})
    files = []
    for number, rows in enumerate(shards):
        files.append(part(tmp_path, number, PASSED))
        pq.write_table(passed(pa.Table.from_pylist(rows, RECORD), number, chosen), files[-1])
    found = {}
    with repeats.database(tmp_path, files) as db:
        repeats.find(db, chosen, pa.array(sorted(listed), pa.string()), shown)
        repeats.name_firsts(db)
        for number, file in enumerate(files):
            keys = pq.read_table(file)["key"].to_pylist()
            for one in repeats.gone(db, number).to_pylist():
                assert (number, keys[one["row"]]) not in found
                found[number, keys[one["row"]]] = (one["reason"], one["detail"])
        counts = repeats.counted(db)
    reasons = [reason for reason, _ in found.values()]
    assert counts == {reason: reasons.count(reason) for reason in counts}
    return found


def test_of_exact_duplicates_the_first_in_the_order_of_shard_and_key_stays(tmp_path):
    shards = [
        [row("b", "cat"), row("a", "cat"), row("c", "dog")],  # unsorted: a stays
        [row("a0", "dog"), row("b0", "cow")],
        [row("a1", "cat"), row("b1", "dog")],
    ]
    assert gone(tmp_path, shards) == {
        (0, "b"): ("duplicate", "of shard 0, key a"),
        (1, "a0"): ("duplicate", "of shard 0, key c"),
        (2, "a1"): ("duplicate", "of shard 0, key a"),
        (2, "b1"): ("duplicate", "of shard 0, key c"),
    }
    assert gone(tmp_path, shards, duplicates=False) == {}


def test_rows_without_a_sha256_are_duplicates_by_their_url_and_those_with_neither_are_none(tmp_path):
    shards = [
        [row("a", url="http://x/1"), row("b"), row("c", "cat", "http://x/1")],
        [row("d", url="http://x/1"), row("b")],
    ]
    assert gone(tmp_path, shards) == {(1, "d"): ("duplicate", "of shard 0, key a")}


def test_duplicates_of_many_rows_are_those_that_a_dictionary_finds(tmp_path):
    rng = np.random.default_rng(0)
    names = rng.integers(0, 3000, 5000)
    rows = [row(f"{i:05d}", int(n) if n % 3 else None, f"http://x/{n}") for i, n in enumerate(names)]
    seen, expected = {}, {}
    for i, n in enumerate(names):
        if n in seen:
            expected[i // 1000, f"{i:05d}"] = ("duplicate", f"of shard {seen[n] // 1000}, key {seen[n]:05d}")
        else:
            seen[n] = i
    shards = [rows[start : start + 1000] for start in range(0, 5000, 1000)]
    assert gone(tmp_path, shards) == expected and len(expected) > 1000


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A file of rows that DuckDB's memory does not hold, some of them repeated; the identities."""
    rng, count = np.random.default_rng(1), 2_000_000
    identities = rng.integers(0, 1_500_000, count, dtype=np.uint64)
    columns = {"place": np.arange(count), "high": identities, "low": np.zeros(count, dtype=np.uint64)}
    empty = dict.fromkeys(("key", "url", "sha256"), pa.nulls(count, pa.string()))
    pq.write_table(pa.table(columns | empty), part(tmp_path, 0, PASSED))
    monkeypatch.setattr(repeats, "MEMORY", "64MB")
    return identities


@pytest.mark.slow
def test_memory_that_does_not_hold_the_rows_does_not_change_what_is_found(tmp_path, many):
    again = np.ones(len(many), dtype=bool)
    again[np.unique(many, return_index=True)[1]] = False
    with repeats.database(tmp_path, [part(tmp_path, 0, PASSED)]) as db:
        repeats.find(db, Filter(survivors=0, validation=1), pa.array([], pa.string()), None)
        found = db.execute("SELECT count(*), sum(place) FROM gone").fetchall()
    assert found == [(int(again.sum()), int(np.flatnonzero(again).sum()))]
    assert not (tmp_path / "duckdb").exists()


@pytest.mark.slow
def test_no_room_for_what_memory_does_not_hold_is_told_as_a_full_disk(tmp_path, many):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OSError) as caught, repeats.database(tmp_path, [part(tmp_path, 0, PASSED)]) as db:
            repeats.find(db, Filter(survivors=0, validation=1), pa.array([], pa.string()), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.ENOSPC


def test_a_listed_url_or_sha256_goes_and_every_copy_of_it(tmp_path):
    shards = [
        [row("a", "cat", "http://x/1"), row("b", "cat", "http://x/2"), row("c", "dog", "http://x/3")],
        [row("d", "cow", "http://x/4"), row("e", "cow", "http://x/5"), row("f", "pig", "HTTP://x/3")],
    ]
    assert gone(tmp_path, shards, ["http://x/2", digest("cow")]) == {
        (0, "a"): ("removal", None),  # the copy that was not listed is the same picture
        (0, "b"): ("removal", None),
        (1, "d"): ("removal", None),
        (1, "e"): ("removal", None),
    }


def test_near_duplicates_within_the_radius_go_and_say_of_which_picture(tmp_path):
    shards = [
        [row("a", "cat", phash=0b0), row("b", "hat", phash=0b111), row("c", "dog", phash=2**64 - 1)],
        [row("d", "cap", phash=0b0), row("e", "bat", phash=0b1111), row("f", "cat", phash=0b0)],
    ]
    assert gone(tmp_path, shards, near_duplicates=3) == {
        (0, "b"): ("near duplicate", "of shard 0, key a, 3 of 64 bits differ"),
        (1, "d"): ("near duplicate", "of shard 0, key a, 0 of 64 bits differ"),
        (1, "f"): ("duplicate", "of shard 0, key a"),
    }
    assert set(gone(tmp_path, shards, near_duplicates=0)) == {(1, "d"), (1, "f")}
    assert set(gone(tmp_path, shards)) == {(1, "f")}


def test_many_rows_of_one_hash_have_one_that_stays(tmp_path):
    rows = [row(f"{i:06d}", i, phash=7) for i in range(20_000)]
    found = gone(tmp_path, [rows[:10_000], rows[10_000:]], near_duplicates=4)
    assert len(found) == 19_999 and (0, "000000") not in found


def test_evaluation_pictures_go_by_their_bytes_or_by_their_look(tmp_path):
    shards = [[row("a", "cat", phash=1), row("b", "dog", phash=0b111000), row("c", "cow", phash=2**40)]]
    shown = Evaluation([digest("cat")], np.array([2**63, 0b110000], dtype=np.uint64))
    assert gone(tmp_path, shards, shown=shown) == {(0, "a"): ("evaluation", None)}
    assert set(gone(tmp_path, shards, shown=shown, near_duplicates=1)) == {(0, "a"), (0, "b")}
    same = Evaluation([digest("x")], np.array([2**40], dtype=np.uint64))
    assert set(gone(tmp_path, shards, shown=same)) == {(0, "c")}  # no radius: hashes that are equal


def test_rows_without_pictures_cannot_be_compared_by_their_look(tmp_path):
    with pytest.raises(SlamError, match="expected pictures to compare, 1 rows have none, e.g. key b: download"):
        gone(tmp_path, [[row("a", "cat"), row("b", "dog", phash=None)]], near_duplicates=2)


def test_lists_are_read_from_text_and_parquet_and_what_is_neither_is_named(tmp_path):
    text, table = tmp_path / "list.txt", tmp_path / "list.parquet"
    text.write_text(f"http://x/1 \n\n{digest(1)}\n")
    with pytest.raises(SlamError, match=r"list.txt, line 1: expected a URL or a sha256 .*'http://x/1 '"):
        lists.removal((str(text),))
    text.write_text(f"http://x/1\r\n\n{digest(1)}\n")
    pq.write_table(pa.table({"URL": ["http://x/2", None], "n": [1, 2], "sha256": [None, digest(2)]}), table)
    listed = lists.removal((str(text), str(table))).to_pylist()
    assert listed == sorted(["http://x/1", "http://x/2", digest(1), digest(2)])
    text.write_text(digest(1).upper())
    with pytest.raises(SlamError, match="line 1: .*lower case"):
        lists.removal((str(text),))
    pq.write_table(pa.table({"n": [1]}), table)
    with pytest.raises(SlamError, match="expected a column url or sha256, found n"):
        lists.removal((str(table),))
    for missing in ("nowhere.txt", "nowhere.parquet"):
        with pytest.raises(SlamError, match=f"{missing} does not exist"):
            lists.removal((str(tmp_path / missing),))


def test_an_evaluation_folder_is_read_with_all_below_it(tmp_path):
    from PIL import Image

    (tmp_path / "val").mkdir()
    pictures = {"a.png": Image.linear_gradient("L"), "val/b.JPG": Image.radial_gradient("L")}
    for name, image in pictures.items():
        (tmp_path / name).write_bytes(encoded(image.convert("RGB")))
    (tmp_path / "readme.txt").write_text("no picture")
    found = lists.evaluation(str(tmp_path))
    contents = [(tmp_path / name).read_bytes() for name in pictures]
    assert found.sha256 == [hashlib.sha256(content).hexdigest() for content in contents]
    assert found.phash.tolist() == [phash(decode(content, "")) for content in contents]
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(SlamError, match="filter.decontaminate: .*c.png"):
        lists.evaluation(str(tmp_path))
    with pytest.raises(SlamError, match="expected a folder of pictures, found none there"):
        lists.evaluation(str(tmp_path / "nowhere"))
    assert lists.evaluation(None) is None
