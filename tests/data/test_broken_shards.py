"""A thousand broken shards: no crash, no hang, memory bounded, nothing written, every picture accounted for."""

import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from slam.data.records import Shard, open_pictures, read_records
from tests.data import breakage

SECONDS = 60  # for one shard, before it counts as hung
MEMORY = 384 * 2**20  # bytes beyond what the process has before; the largest picture allowed is 256 MiB decoded
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
STARTS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket.connect"}
EVENTS: list = []  # what a reader must not cause, and did while `reading`
reading = False


def watch(event, arguments):
    """An audit hook, which cannot be removed again, hence `reading`."""
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o103  # WRONLY, RDWR, CREAT
    if reading and (writing or event in WRITES | STARTS):
        EVENTS.append((event, arguments))


def memory(name):
    """VmRSS or VmHWM, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def hung(number, frame):
    raise TimeoutError(f"one shard took more than {SECONDS} s")


@pytest.fixture
def guarded():
    """Every reading in the test is timed and watched; at the end the peak of its memory is held against MEMORY."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
    before = memory("VmRSS")
    sys.addaudithook(watch)
    old = signal.signal(signal.SIGALRM, hung)
    yield
    signal.signal(signal.SIGALRM, old)
    assert memory("VmHWM") - before < MEMORY
    assert not EVENTS


def read(folder, name, phash):
    """The records of the shard, and the bytes of each picture that it says is good."""
    global reading
    places = (folder / f"{name}{end}" for end in (".parquet", ".tar", "_stats.json"))
    shard = Shard(name, "img2dataset", *places)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    reading = True
    try:
        rows = read_records(shard, phash).to_pylist()
        with open_pictures(shard) as picture:
            return rows, {r["key"]: picture(r["member"], r["offset"]) for r in rows if r["status"] == "success"}
    finally:
        reading = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def check(built, folder, name):
    keys, pictures = built.keys, {}
    breakage.write(built, folder, name)
    for member, content, _ in built.members:
        if member.split(".")[0] in keys and not member.endswith((".txt", ".json")):
            pictures[member.split(".")[0]] = content
    rows, kept = read(folder, name, built.phash)
    listed = {row["key"]: (row["status"], row["detail"]) for row in rows}
    assert len(listed) == len(rows) and set(listed) == {*keys, *built.expected}, "each once, none lost, none made up"
    for key, (status, detail) in listed.items():
        wanted, words = built.expected.get(key, ("success", ()))
        assert status in ((wanted,) if isinstance(wanted, str) else wanted), (key, status, detail)
        assert status == "success" or all(word in detail for word in words), (key, detail)
        if status == "success" and key not in built.expected:
            assert kept[key] == pictures[key]
    for end in (".tar", ".parquet"):
        (folder / f"{name}{end}").unlink()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured through Linux's /proc")
def test_of_a_thousand_broken_shards_every_good_sample_is_kept_and_every_bad_one_listed(tmp_path, guarded):
    for number in range(1000):
        rng = np.random.default_rng((20, number))
        built = breakage.build(rng, number)
        if number % 3 == 2:
            breakage.OF_A_TAR[number // 3 % len(breakage.OF_A_TAR)](built, rng)
        else:
            victims = [str(key) for key in rng.permutation(built.keys)[: rng.integers(1, 4)]]
            for turn, key in enumerate(victims):
                breakages = breakage.OF_A_SAMPLE
                which = number if not turn else int(rng.integers(len(breakages)))  # each has its turn
                built.expected |= breakages[which % len(breakages)](built, rng, key)
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of odd pictures
            check(built, tmp_path, f"{number:05d}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_member_over_the_limit_costs_its_sample_and_is_never_read(tmp_path, guarded):
    for number in range(3):
        rng = np.random.default_rng((21, number))
        built = breakage.build(rng, number)
        breakage.oversize(built, rng)
        check(built, tmp_path, f"{number:05d}")
