"""A disk that fails or fills up: a clear stop, the checkpoint before it whole, and the same bits when it is mended."""

import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from slam.training import checkpoint
from tests.faults import runs
from tests.faults.broken_disk import OPERATIONS, Disk

LAST, BEFORE = "step-000012", "step-000010"
POINTS = 20


@pytest.fixture(scope="session")
def half(undisturbed, tmp_path_factory) -> Path:
    """The run, two steps before its end, one checkpoint to write, and one to thin."""
    folder = runs.copy(undisturbed, tmp_path_factory.mktemp("half") / "run")
    shutil.rmtree(folder / "checkpoints" / LAST)
    return folder


def assert_stopped_with_a_good_checkpoint(folder: Path, end: runs.End) -> None:
    assert end.code == 1, end.said
    assert "slam train: " in end.said
    assert "Traceback" not in end.said, end.said
    said: list[str] = []
    newest = checkpoint.newest_whole(folder / "checkpoints", said.append)
    assert newest.name in (BEFORE, LAST) and not said


def assert_goes_on(folder: Path, expected: runs.Result) -> None:
    end = runs.run(folder)
    assert end.code == 0, end.said
    assert runs.result(folder) == expected
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_fault_at_each_operation_on_the_disk(half, expected, tmp_path, tally):
    counts = tmp_path / "counts"
    assert runs.run(runs.copy(half, tmp_path / "whole"), Disk(counts=counts)).code == 0
    seen = Counter(counts.read_text().split())
    assert set(seen) == set(OPERATIONS) and seen["fsync"] > 8 and seen["write"] > 4, seen
    for operation, times in seen.items():
        for n in range(1, times + 1):
            folder = runs.copy(half, tmp_path / f"{operation}-{n}")
            tally.tried(f"I/O error at a {operation}")
            end = runs.run(folder, Disk(operation, n))
            if end.code:  # else it was of no consequence
                assert_stopped_with_a_good_checkpoint(folder, end)
                assert "Input/output error" in end.said
            assert_goes_on(folder, expected)


@contextmanager
def small_disk(place: Path, kilobytes: int):
    """A file system of that size at `place`. Skips the test where this user may not mount one."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk to fill, which only root may mount: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def used(folder: Path) -> int:
    """Kilobytes, in whole pages of 4."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_no_space_left_at_twenty_points(half, undisturbed, expected, tmp_path, tally):
    had, needs = used(half), used(half) + used(undisturbed / "checkpoints" / LAST)
    for point in range(POINTS):
        size = had + 8 + (needs - had) * point // POINTS
        with small_disk(tmp_path / str(point), size) as disk:
            folder = runs.copy(half, disk / "run")
            tally.tried("no space left")
            end = runs.run(folder)
            assert_stopped_with_a_good_checkpoint(folder, end)
            assert "No space left" in end.said
            subprocess.run(["mount", "-o", f"remount,size={4 * needs}k", disk], check=True)
            assert_goes_on(folder, expected)
