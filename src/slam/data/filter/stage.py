"""Stage `filter`: validate what is told of the pictures, keep the rows worth training on, say why each other one went.

Each shard by itself (`sift`), in any engine; then what only shows over all of them (`repeats`), out of core; then the
lists, shard by shard (`manifest`). What a shard gave is kept, so a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slam.config import Filter
from slam.data.deps import own_files, require_deps
from slam.data.filter import histograms, lists, repeats
from slam.data.filter.conservation import NONE, SHARDS, overlapping, shortage, total
from slam.data.filter.engines import ENGINES, Job, Map, begin
from slam.data.filter.jobs import Check, checked, described, drawn
from slam.data.filter.manifest import MANIFEST, write_lists
from slam.data.filter.sift import FACTS, PAGE, PASSED, REJECTED, Task, part, sift
from slam.data.records import RECORD, Shard, read_raw
from slam.data.room import room
from slam.data.validation import pages
from slam.data.validation.further import further
from slam.data.validation.suites import SUITES, Outcome, Suite
from slam.errors import SlamError
from slam.files import read_json, resumable_folder, whole_folder, write_json
from slam.launch import cores
from slam.progress import progress

SMALL = 64 * 2**20  # bytes of shards that are not worth the seconds in which processes start


def filter_stage(
    config: Filter,
    raw: Path,
    out: Path,
    scores: Path | None = None,
    engine: str | Map | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
) -> dict:
    """Write manifest.parquet, rejected.parquet, counts.json, histograms.png and docs/ into `out`; returns the counts.

    `scores` is what `slam score` left, for rows whose metadata has no aesthetics score.
    `engine`: one of ENGINES, or a map as theirs is; by default several processes, where there is enough to do for them.
    Raises `SlamError` when an expectation fails, too few rows survive or the disk is full: `out` then stays as it was.
    In the first two cases the documents lie in a folder beside it whose name ends in `-failed`.
    """
    require_deps(own_files(config))
    source, scores = read_raw(raw.absolute()).shards, scores and scores.absolute()  # a worker may stand elsewhere
    added = further(config.expectations, {"rows": (*RECORD.names, "aspect"), "manifest": MANIFEST.names})
    suites = {name: SUITES[name](config) + added.get(name, []) for name in ("rows", "shards", "manifest")}
    listed = lists.removal(config.removal)
    failed = out.with_name(f"{out.name}-failed")
    named = ENGINES[engine if isinstance(engine, str) else _engine(source)]
    workers = nullcontext(engine) if callable(engine) else named(processes or cores(), scheduler)
    fingerprint = _fingerprint(source, config, suites, scores)
    with room(out), workers as run, resumable_folder(out.absolute(), fingerprint) as folder:
        parts = folder / "parts"
        parts.mkdir(exist_ok=True)
        tasks = [Task(number, shard, config, suites["rows"], parts, scores) for number, shard in enumerate(source)]
        facts = _sift_all(tasks, run)
        spread = histograms.total([fact["histograms"] for fact in facts])
        draw = partial(drawn, spread, config.limits, folder / "histograms.png")
        aside = begin(run, {"picture": draw, "suites": partial(described, suites)})
        of_shards = begin(run, {"all-shards": _check_shards(facts, folder, suites["shards"])})()
        problems = [p for fact in facts for p in fact["problems"]] + _problems(of_shards)
        counts, checks = total(facts, {}), {}
        if not problems:
            shown = lists.evaluation(config.decontaminate)
            with repeats.database(folder, [part(parts, task.number, PASSED) for task in tasks]) as db:
                repeats.find(db, config, listed, shown)
                counts = total(facts, repeats.counted(db))
                problems = shortage(counts, config)
                if not problems:
                    sizes = _write_lists(folder, tasks, db, config, counts)
                    checks = _check_manifest(folder, sizes, suites["manifest"])
        write_json(folder / "counts.json", counts)
        of_pieces = dict(sorted(begin(run, checks)().items()))
        problems += _problems(of_pieces)
        tables = _tables(tasks, facts, {"shards": of_shards, "manifest": of_pieces})
        pages.write(folder / "docs", tables, aside()["suites"], counts, problems, _notes(facts))
        if problems:
            with whole_folder(failed) as kept:
                for name in ("docs", "counts.json", "histograms.png"):
                    (folder / name).rename(kept / name)
            shutil.rmtree(folder)
            raise SlamError(_complaint(problems, failed / "docs/index.html"))
        shutil.rmtree(parts)
    shutil.rmtree(failed, ignore_errors=True)
    return counts


def _fingerprint(source: list[Shard], config: Filter, suites: dict[str, Suite], scores: Path | None) -> str:
    """Of all that the output depends on; of a file its size and time, for the tars alone may be terabytes."""
    places = [place for shard in source for place in (shard.parquet, shard.tar, shard.stats, shard.images) if place]
    files = [*places, *config.removal, *(sorted(scores.iterdir()) if scores else [])]
    if config.decontaminate:
        files += sorted(path for path in Path(config.decontaminate).rglob("*") if path.is_file())
    seen = [(str(file), (stat := Path(file).stat()).st_size, stat.st_mtime_ns) for file in files if Path(file).exists()]
    meant = {"config": config.model_dump(), "suites": suites, "source": str(source), "files": seen}
    return hashlib.sha256(json.dumps(meant).encode()).hexdigest()


def _engine(source: list[Shard]) -> str:
    """Several processes take seconds to start."""
    work = sum(path.stat().st_size for shard in source for path in (shard.parquet, shard.tar) if path and path.exists())
    return "processes" if len(source) > 1 and cores() > 1 and work > SMALL else "serial"


def _sift_all(tasks: list[Task], run: Map) -> list[dict[str, Any]]:
    """What is found in each shard, of those that are not done already by `run`."""
    notes = {task.number: part(task.parts, task.number, FACTS) for task in tasks}
    done = {number: read_json(note, "slam filter") for number, note in notes.items() if note.is_file()}
    left = [task for task in tasks if task.number not in done]
    with progress(label="filter", total=len(tasks), initial=len(done)) as bar:
        for facts in run(sift, left):
            done[facts["number"]] = facts
            bar.update()
    return [done[task.number] for task in tasks]


def _check_shards(facts: list[dict[str, Any]], folder: Path, suite: Suite) -> Job:
    shared = {}
    if close := overlapping([fact["keys"] for fact in facts]):
        files = [part(folder / "parts", number, what) for number in close for what in (PASSED, REJECTED)]
        with repeats.database(folder, files) as db:
            shared = repeats.shared_keys(db)
    table = [fact["conservation"] | {"keys of another shard": shared.get(fact["number"], NONE)} for fact in facts]
    file = folder / "parts" / "shards.parquet"
    pq.write_table(pa.Table.from_pylist(table, SHARDS), file)
    return partial(checked, Check("all-shards", "shards", suite, file, 0, "shard"))


def _check_manifest(folder: Path, sizes: list[int], suite: Suite) -> dict[str, Job]:
    """A job for each piece of the manifest, of those sizes."""
    file = folder / "manifest.parquet"
    names = [f"manifest-{first:09d}" for first in accumulate(sizes[:-1], initial=0)]
    pieces = [Check(name, "manifest", suite, file, group, "key") for group, name in enumerate(names)]
    return {piece.asset: partial(checked, piece) for piece in pieces}


def _problems(outcomes: dict[str, Outcome]) -> list[str]:
    return [problem for outcome in outcomes.values() for problem in outcome.problems]


def _write_lists(folder: Path, tasks: list[Task], db: repeats.Database, config: Filter, counts: dict) -> list[int]:
    """manifest.parquet and rejected.parquet; the rows of each row group of the first."""
    repeats.name_firsts(db)
    shards = (
        (part(task.parts, task.number, PASSED), part(task.parts, task.number, REJECTED), repeats.gone(db, task.number))
        for task in tasks
    )
    sizes, gone = write_lists(folder, shards, repeats.last_held_out(db, config.validation))
    assert (sum(sizes), gone) == (counts["survivors"], sum(counts["rejected"].values())), "the lists hold the counted"
    return sizes


def _tables(
    tasks: list[Task], facts: list[dict[str, Any]], outcomes: dict[str, dict[str, Outcome]]
) -> Iterator[pages.Table]:
    for task, fact in zip(tasks, facts, strict=True):
        html = part(task.parts, task.number, PAGE).read_text(encoding="utf-8")
        yield pages.Table(task.shard.name, "rows", fact["problems"], html)
    for suite, found in outcomes.items():
        for name, outcome in found.items():
            yield pages.Table(name, suite, outcome.problems, outcome.page)


def _notes(facts: list[dict[str, Any]]) -> list[str]:
    return [note for fact in facts if (note := fact["conservation"]["note"])]


def _complaint(problems: list[str], docs: Path) -> str:
    shown = problems[:10] + ([f"… and {len(problems) - 10} more"] if len(problems) > 10 else [])
    return "\n".join(["the data was not accepted:", *(f"  {p}" for p in shown), f"  every check: {docs}"])
