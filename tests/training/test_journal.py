"""The journal keeps every whole line, whatever else is in the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slam.errors import SlamError
from slam.training.journal import Journal, Tail, read_journal

LINES = [{"step": step, "loss": 1 / step, "time": 1.7e9 + step} for step in range(1, 6)]


def encoded(lines: list[dict]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (encoded(LINES) + b'{"step": 6, "lo', LINES),  # a kill in the last line
        (encoded(LINES[:2]) + bytes(4096) + b"\n" + encoded(LINES[2:]), LINES),  # a power loss
        (encoded(LINES[:2]) + bytes(100) + encoded(LINES[2:]), LINES),
        (encoded(LINES[:2]) + b'{"step": 3, "lo' + encoded(LINES[3:]), LINES[:2] + LINES[3:]),
        (encoded(LINES[::-1]), LINES),
        (encoded([{"step": 2, "loss": 9.0}, *LINES]), LINES),  # the later one holds
        (encoded(LINES[:3]) + b"\xff\xfe\n[1]\n7\n" + encoded(LINES[3:]), LINES),
        (b"", []),
    ],
)
def test_no_whole_line_is_lost_for_a_broken_one(found, kept, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(found)
    assert read_journal(path) == kept


@given(st.binary(max_size=60).filter(lambda junk: b'"step"' not in junk), st.integers(0, 5))
def test_whatever_bytes_come_between_two_lines_both_are_read(tmp_path_factory, junk, place):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    path.write_bytes(encoded(LINES[:place]) + junk + b"\n" + encoded(LINES[place:]))
    assert read_journal(path) == LINES


def test_a_journal_that_goes_on_drops_the_steps_that_are_trained_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encoded(LINES) + b'{"st')
    journal = Journal(path, 3)
    journal.write([{"step": 4, "loss": 7.0}])
    journal.close()
    assert read_journal(path) == [*LINES[:3], {"step": 4, "loss": 7.0}]


def test_a_full_disk_stops_the_journal_with_advice():
    journal = Journal.__new__(Journal)
    from pathlib import Path

    journal.path = Path("/dev/full")
    journal.file = journal.path.open("ab", buffering=0)
    with pytest.raises(SlamError, match=r"No space left on device.*make room.*goes on from the newest checkpoint"):
        journal.write(LINES)


def test_a_tail_gives_each_line_once_when_it_is_whole_and_all_again_after_a_replacement(tmp_path):
    path = tmp_path / "journal.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_bytes(encoded(LINES[:2]) + encoded(LINES[2:3])[:9])
    assert tail.read() == LINES[:2]
    assert tail.read() == []
    with path.open("ab") as file:
        file.write(encoded(LINES[2:3])[9:])
    assert tail.read() == LINES[2:3]
    Journal(path, 1).write([{"step": 2, "loss": 7.0}])
    assert tail.read() == [LINES[0], {"step": 2, "loss": 7.0}]
