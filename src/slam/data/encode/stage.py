"""Stage `encode`: the survivors' pictures to scaled VAE latents, their captions to token ids.

A shard of latents is a run of rows of the filter's manifest, all of one split. Shard i of those that are to be made
belongs to process i mod the number of processes; one that is done is known by its sidecar. So any number of
processes, on any number of machines that share the folder, makes the same bytes, and so does a run that was killed
and taken up by another number. (On a CPU the last bits of a convolution depend on the number of its threads: there,
give each process as many as before, OMP_NUM_THREADS.)

`slam encode` starts `encode.processes` of them on this machine. Where a launcher started it already, as in

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m slam.cli encode

each of those processes takes its share, and `encode.processes` is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slam.config import Encode, Filter
from slam.data.deps import require_deps
from slam.data.encode.check import suites, validate
from slam.data.encode.pictures import REASONS, threads_of
from slam.data.encode.plan import SPLITS, Job, Manifest
from slam.data.encode.progress import PROGRESS, keep, sidecars, unfinished, write_tables
from slam.data.encode.shards import Encoder, encode_rows, load_encoder, shrinkage
from slam.data.encode.sheet import write_sheet
from slam.data.latents import identity
from slam.data.records import Raw, read_raw
from slam.data.room import room
from slam.errors import SlamError
from slam.files import locked, read_json, resumable_folder, sha256, write_json
from slam.launch import accelerate_launch, sigterm_raises
from slam.progress import progress

PATIENCE = timedelta(days=7)  # that processes wait for the one with the most to do
TODO = "todo.json"  # in the folder of the progress: the files that this run is to make


class Task(NamedTuple):
    config: Encode
    teacher: str
    raw: Path
    filtered: Path
    out: Path
    checks: Filter  # where further expectations are

    @property
    def folder(self) -> Path:
        """Where `resumable_folder` has what is not finished."""
        return self.out.with_name(f".{self.out.name}.partial")


class Process(NamedTuple):
    """One of those that encode."""

    index: int
    count: int
    local: int  # how many of them this machine runs
    device: str
    wait: Callable[[], Any]  # for all the others


def encode_stage(config: Encode, teacher: str, raw: Path, filtered: Path, out: Path, checks: Filter) -> dict:
    """Write the shards of latents, manifest.parquet, rejected.parquet, index.json, docs/ and decoded.png into `out`;
    returns the counts.

    Shards that a killed run finished are kept if their sha256 still holds. Raises `SlamError` when too many pictures
    are broken, when the latents do not meet their expectations or are not what fp32 gives, and when another process
    is at work on `out`; what is done is then kept beside `out` for the next run.
    """
    require_deps([checks.expectations] if checks.expectations else [])
    task = Task(config, teacher, raw, filtered, out, checks)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        run(task, _launched())
    elif config.processes == 1:
        run(task, Process(0, 1, 1, "cuda" if torch.cuda.is_available() else "cpu", lambda: None))
    else:
        arguments = [config.model_dump_json(), checks.model_dump_json(), *map(str, task[1:-1])]
        code = accelerate_launch("slam.data.encode.stage", arguments, config.processes, key="encode.processes")
        if code:
            raise SlamError(f"encoding ended with exit code {code}; the same command goes on from what is done", code)
    return read_json(out / "counts.json", "slam encode")


def _launched() -> Process:
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Process(state.process_index, state.num_processes, local, str(state.device), state.wait_for_everyone)


def run(task: Task, process: Process) -> None:
    """This process's share of the task; the first process also begins and ends it."""
    with sigterm_raises(), room(task.out), _place(task) if process.index == 0 else nullcontext(task.folder) as folder:
        manifest, source = Manifest(task.filtered / "manifest.parquet"), read_raw(task.raw)
        jobs = manifest.plan(task.config.shard)
        if process.index == 0:
            suites(task.checks)  # what is wrong in the user's file is told now, not when all is encoded
            (folder / PROGRESS).mkdir(exist_ok=True)
            write_json(folder / PROGRESS / TODO, [job.file for job in unfinished(folder, jobs)])
        encoder = load_encoder(task.config, task.teacher, process.device, threads_of(process.local))
        process.wait()
        todo = set(read_json(folder / PROGRESS / TODO, "slam encode"))
        mine = [job for job in jobs if job.file in todo][process.index :: process.count]
        _make(folder, mine, manifest, source, encoder, process)
        process.wait()
        if process.index == 0:
            _finish(folder, jobs, manifest, source, encoder, task)
    process.wait()


@contextmanager
def _place(task: Task):
    """The unfinished folder, for one run at a time."""
    out = task.out
    parts = {part: identity(task.teacher, part) for part in ("vae", "tokenizer")}
    files = [task.filtered / "manifest.parquet", task.raw / "index.json"]
    meant = {
        "config": task.config.model_dump(exclude={"processes", "broken"}),  # these leave the numbers alone
        "parts": parts,
        "files": [sha256(file) for file in files if file.is_file()],
    }
    fingerprint = hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()
    with (
        locked(out.with_name(f".{out.name}.lock"), f"`slam encode` is writing {out}"),
        resumable_folder(out, fingerprint) as folder,
    ):
        yield folder


def _make(folder: Path, jobs: list[Job], manifest: Manifest, source: Raw, encoder: Encoder, process: Process) -> None:
    """Make this process's shards. Stops when they alone hold more broken pictures than the whole set may."""
    label = "encode" if process.count == 1 else f"encode, 1 of {process.count}"
    rejected = 0
    with progress(label=label, total=sum(len(job.rows) for job in jobs), disable=process.index > 0) as bar:
        for job in jobs:
            rows = manifest.rows(job)
            shard, facts = encode_rows(rows, source, encoder, bar.update)
            rejected += keep(folder, job, shard, rows, facts)["rejected"]
            _check_share(rejected, len(manifest), encoder.config, folder)


def _check_share(rejected: int, rows: int, config: Encode, folder: Path) -> None:
    if rejected > config.broken * rows:
        raise SlamError(
            f"{rejected} of {rows} pictures are broken or changed, more than encode.broken = {config.broken:.2%}: "
            f"{folder / PROGRESS} names them (columns key, reason, detail). If the source was repaired, remove "
            f"{folder} and run `slam encode` again; if that many may go, raise encode.broken"
        )


def _finish(folder: Path, jobs: list[Job], manifest: Manifest, source: Raw, encoder: Encoder, task: Task) -> None:
    """Check what all processes made, and write what tells of it."""
    entries = sidecars(folder, jobs)
    rejected = sum(entry["rejected"] for entry in entries)
    _check_share(rejected, len(manifest), task.config, folder)
    kept = {split: [(j, e) for j, e in zip(jobs, entries, strict=True) if j.split == split] for split in SPLITS}
    samples = {split: sum(entry["count"] for _, entry in pairs) for split, pairs in kept.items()}
    for split, pairs in kept.items():
        if pairs and not samples[split]:
            raise SlamError(f"no picture of the split {split} could be encoded: {folder / PROGRESS} tells why")
    side = task.config.resolution // shrinkage(encoder.model)
    shape = [encoder.model.vae.config.latent_channels, side, side]
    reasons = write_tables(folder, jobs)
    counts = {**samples, "rejected": {name: reasons.get(name, 0) for name in REASONS}, "shards": len(jobs)}
    told = {"rows": len(manifest), "rejected": counts["rejected"], "survivors": sum(samples.values())}
    validate(folder, jobs, entries, shape, told, task.checks)
    shown = next(job for job, entry in reversed([*zip(jobs, entries, strict=True)]) if entry["count"])
    write_sheet(folder / "decoded.png", folder / shown.file, shown, manifest, source, encoder)
    parts = {part: identity(task.teacher, part) for part in ("vae", "tokenizer")}
    scaling = {"scaling_factor": encoder.model.vae.config.scaling_factor, "latent_shape": shape}
    shards = [
        {"file": job.file, "split": job.split} | {key: entry[key] for key in ("count", "bytes", "sha256")}
        for job, entry in zip(jobs, entries, strict=True)
    ]
    write_json(folder / "index.json", {**parts, **scaling, "shards": shards})
    write_json(folder / "counts.json", counts)
    shutil.rmtree(folder / PROGRESS)


if __name__ == "__main__":
    try:
        _encode, _checks, _teacher, *_places = sys.argv[1:]
        run(
            Task(
                Encode.model_validate_json(_encode),
                _teacher,
                *map(Path, _places),
                Filter.model_validate_json(_checks),
            ),
            _launched(),
        )
    except SlamError as error:
        print(f"slam encode: {error}", file=sys.stderr)
        sys.exit(1)
