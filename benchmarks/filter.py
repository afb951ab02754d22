"""How long `slam filter` takes, and how much memory, on metadata of LAION's shape.

    python -m benchmarks.filter                      # 20,000, 1M, 12M and 50M rows; of disk 15 GB, of time half an hour
    python -m benchmarks.filter --rows 20000 100000000 --repeat 5 1

The metadata is generated (seeded) in --folder and removed, unless --keep. Each run is a process of its own; its memory
is the sum over it and its children of their resident sets (pages that they share count for each), its time on a
processor that of all of them together, looked at twenty times a second. The median of the runs is reported.

What every run costs, whatever its rows (it imports Great Expectations, draws the histograms, writes the Data Docs), is
the time of the first of --rows, which are to be few; the cost of a row is the time that comes on top.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.config import Filter, Source
from slam.data.sources import metadata
from slam.files import whole_folder

GROUP = 125_000  # rows of a row group
REPEATED = 0.08  # share of the rows whose URL an earlier row has
CHILD = "import sys; from benchmarks.filter import run; run(sys.argv[1], sys.argv[2], sys.argv[3])"
CONFIG = Filter(
    limits={
        "aesthetic": {"min": 6.0, "missing": "drop"},
        "short_side": {"min": 512, "missing": "drop"},
        "aspect": {"max": 3.0, "missing": "drop"},
        "watermark": {"max": 0.5, "missing": "keep"},
        "nsfw": {"max": 0.5, "missing": "drop"},
        "similarity": {"min": 0.25, "missing": "keep"},
        "caption": {"min": 3, "missing": "drop"},
    },
    survivors=0.1,
    validation=4096,
)
WORDS = (
    "a an the of on in with and red blue old new small large house street portrait landscape painting vintage poster "
    "wedding beach mountain forest kitchen modern art print canvas photo stock vector illustration dog cat horse bird "
    "flower garden night sunset light dark woman man child family car train bridge river café naïve 東京 über"
)


def generate(folder: Path, rows: int, shard: int, seed: int = 0) -> None:
    """part-NNNNN.parquet of LAION-Aesthetics' columns, `shard` rows each."""
    with whole_folder(folder) as partial:
        for number, start in enumerate(range(0, rows, shard)):
            table = laion(start, min(shard, rows - start), rows, (seed, number))
            pq.write_table(table, partial / f"part-{number:05d}.parquet", row_group_size=GROUP)


def laion(start: int, count: int, rows: int, seed: tuple[int, int]) -> pa.Table:
    """The rows [start, start + count) of `rows`; a picture's URL depends on its number alone, so some come again."""
    rng = np.random.default_rng(seed)
    number = np.arange(start, start + count, dtype=np.uint64)
    again = rng.random(count) < REPEATED
    number[again] = rng.integers(0, max(start, 1), again.sum())
    words, same = WORDS.split(), np.random.default_rng(seed[0])  # the same hosts in every shard
    hosts = pa.array([f"https://{same.choice(words[8:40])}{i}.example.com/wp-content/uploads/" for i in range(5000)])
    phrases = pa.array([" ".join(same.choice(words, same.integers(2, 9))) for _ in range(2000)])
    mixed = (number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(8)
    name = pa.array(mixed).cast(pa.string())
    url = pc.binary_join_element_wise(hosts.take(pa.array(mixed % 5000)), name, "-1024x768.jpg", "")
    caption = pc.binary_join_element_wise(
        *(phrases.take(pa.array(rng.integers(0, len(phrases), count))) for _ in range(2)),
        "\n" if seed[1] % 7 == 0 else " ",
    )
    short = rng.random(count) < 0.002
    caption = pc.if_else(pa.array(short), "ab", caption)

    def some(values: np.ndarray, null: float, nan: float = 0.0) -> pa.Array:
        if nan:
            values[rng.random(count) < nan] = np.nan
        return pa.array(values, mask=rng.random(count) < null)

    watermark = np.where(rng.random(count) < 0.02, 0, rng.beta(0.5, 1.3, count)).astype(np.float32)
    side = np.exp(rng.normal(6.7, 0.45, count)).clip(16, 12000).round()
    ratio = np.exp(rng.normal(0.1, 0.35, count))
    return pa.table(
        {
            "URL": url,
            "TEXT": pc.if_else(pa.array(rng.random(count) < 0.0005), None, caption),
            "WIDTH": some(side, 0.004),
            "HEIGHT": some((side * ratio).round(), 0.004, 0.001),
            "similarity": some(rng.normal(0.33, 0.04, count), 0.001),
            "hash": pa.array(mixed.astype(np.int64)),
            "punsafe": some(rng.beta(0.3, 6, count).astype(np.float32), 0.01, 0.002),
            "pwatermark": some(watermark, 0.03, 0.002),
            "AESTHETIC_SCORE": some((5.9 + rng.gamma(1.2, 0.35, count)).clip(1, 10).astype(np.float32), 0.0002, 0.0002),
            "__index_level_0__": pa.array(number.astype(np.int64)),
        }
    )


def run(raw: str, out: str, processes: str) -> None:
    """The stage, in the process that is measured."""
    from slam.data.filter.stage import filter_stage

    print(json.dumps(filter_stage(CONFIG, Path(raw), Path(out), processes=int(processes))))


def measure(raw: Path, out: Path, processes: int) -> tuple[float, float, float, dict]:
    """Seconds, of them on a processor (all processes together), GB at the peak, the counts."""
    shutil.rmtree(out, ignore_errors=True)
    begun, spent = time.perf_counter(), {}
    command = [sys.executable, "-c", CHILD, str(raw), str(out), str(processes)]
    log = out.with_name("stderr.txt").open("w+")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    peak, watched = 0, psutil.Process(child.pid)
    while child.poll() is None:
        peak = max(peak, look(watched, spent))
        time.sleep(0.05)
    seconds = time.perf_counter() - begun
    said = child.stdout.read()
    if child.returncode:
        log.seek(0)
        sys.exit(f"the stage failed with {child.returncode}:\n{log.read()[-2000:]}")
    return seconds, sum(spent.values()), peak / 1e9, json.loads(said.splitlines()[-1])


def look(process: psutil.Process, spent: dict[int, float]) -> int:
    """Bytes of the process and its children; `spent` gets the seconds that each was on a processor."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess), each.oneshot():
                total += each.memory_info().rss
                spent[each.pid] = sum(each.cpu_times()[:2])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 1_000_000, 12_000_000, 50_000_000])
    parser.add_argument("--shard", type=int, default=500_000, help="rows of a file")
    parser.add_argument("--repeat", type=int, nargs="+", default=[5, 5, 5, 3], help="runs, for each of --rows")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slam-benchmark-filter")
    parser.add_argument("--keep", action="store_true", help="the metadata, for the next time")
    chosen = parser.parse_args()
    names = (
        "rows",
        "runs",
        "seconds",
        "least-most",
        "us a row",
        "us a row on top",
        "s on a processor",
        "peak GB",
        "load",
        "survivors",
    )
    print(f"| {' | '.join(names)} |\n{'| ---: ' * len(names)}|", flush=True)
    first = None  # rows and seconds
    for place, rows in enumerate(chosen.rows):
        folder = chosen.folder / f"{rows}-{chosen.shard}"
        if not (folder / "laion").is_dir():
            generate(folder / "laion", rows, chosen.shard)
        metadata.make(Source(kind="metadata", path=str(folder / "laion")), folder / "raw")
        repeat = chosen.repeat[min(place, len(chosen.repeat) - 1)]
        runs = [measure(folder / "raw", folder / "out", chosen.processes) for _ in range(repeat)]
        times, processor_times, peaks, counts = zip(*runs, strict=True)
        median = statistics.median(times)
        first = first or (rows, median)
        on_top = f"{1e6 * (median - first[1]) / (rows - first[0]):.2f}" if rows > first[0] else "-"
        print(
            f"| {rows:,} | {len(runs)} | {median:.1f} | {min(times):.1f}-{max(times):.1f} | {1e6 * median / rows:.2f} "
            f"| {on_top} | {statistics.median(processor_times):.1f} | {max(peaks):.2f} | {os.getloadavg()[0]:.1f} "
            f"| {counts[0]['survivors']:,} |",
            flush=True,
        )
        shutil.rmtree(folder / "out")
        if not chosen.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
