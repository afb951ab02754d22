"""What the unfinished folder knows of the shards that are done, and what becomes of it at the end.

A shard that is done has, in the sub-folder `progress`, its rows (NAME.parquet: manifest and FACTS) and then, written
last, its sidecar NAME.json: {"bytes", "sha256", "count", "rejected"}. Whoever goes on needs nothing else: neither
how many processes made them, nor which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from slam.data.encode.plan import Job
from slam.data.encode.shards import FACTS
from slam.errors import SlamError
from slam.files import read_json, sha256, whole_file, write_json

PROGRESS = "progress"
# Where each sample is, what it was made of, and the size of the picture whose central square it is, pixels.
CONTENTS = ["split", "key", "caption", "sha256", "file", "row", "width", "height"]
REJECTED = ["file", "key", "reason", "detail"]
SAMPLES = ["key", "finite", "mean", "std", "spread"]  # the table that the suite `latents` is run on
SHARDS = pa.schema(
    [("shard", pa.string())]
    + [(name, pa.int64()) for name in ("rows", "encoded and rejected", "encoded", "latents", "captions")]
    + [("shape", pa.string()), ("shape of the set", pa.string()), ("mean", pa.float64()), ("variance", pa.float64())]
)
HASHERS = 8  # threads


def keep(folder: Path, job: Job, tensors: dict[str, Tensor], rows: pa.Table, facts: pa.Table) -> dict:
    """Write a shard, its rows and its sidecar; returns the sidecar.

    Raises `SlamError` when the disk does not take it.
    """
    progress = folder / PROGRESS
    for name in FACTS.names:
        rows = rows.append_column(FACTS.field(name), facts[name])
    try:
        with whole_file(folder / job.file) as partial:
            partial.write_bytes(save(tensors))
            entry = {"bytes": partial.stat().st_size, "sha256": sha256(partial)}
        with whole_file(progress / f"{job.name}.parquet") as partial:
            pq.write_table(rows, partial, compression="zstd")
        entry |= {"count": len(tensors["latents"]), "rejected": len(rows) - len(tensors["latents"])}
        write_json(progress / f"{job.name}.json", entry)
    except OSError as error:
        raise SlamError(
            f"{folder / job.file} cannot be written: {error.strerror}. The shards before it are whole: "
            "the same command goes on from them"
        ) from None
    return entry


def unfinished(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs whose shard is not there, or not as its sidecar says."""
    with ThreadPoolExecutor(HASHERS) as pool:
        return [job for job, done in zip(jobs, pool.map(lambda job: _done(folder, job), jobs), strict=True) if not done]


def _done(folder: Path, job: Job) -> bool:
    sidecar, shard = folder / PROGRESS / f"{job.name}.json", folder / job.file
    if not (sidecar.is_file() and shard.is_file() and sidecar.with_suffix(".parquet").is_file()):
        return False
    entry = json.loads(sidecar.read_text(encoding="utf-8"))
    return shard.stat().st_size == entry["bytes"] and sha256(shard) == entry["sha256"]


def sidecars(folder: Path, jobs: Sequence[Job]) -> list[dict]:
    """One for each job. Raises `SlamError` unless every row of every job was either encoded or rejected."""
    found = [read_json(folder / PROGRESS / f"{job.name}.json", "slam encode") for job in jobs]
    for job, entry in zip(jobs, found, strict=True):
        if entry["count"] + entry["rejected"] != len(job.rows):
            raise SlamError(
                f"{job.file}: expected {len(job.rows)} rows, found {entry['count']} encoded and {entry['rejected']} "
                f"rejected: remove {folder} and run `slam encode` again"
            )
    return found


def statistics(folder: Path, jobs: Sequence[Job]) -> Iterator[tuple[Job, pa.Table]]:
    """Of each shard a row of SAMPLES for each sample."""
    for job in jobs:
        rows = pq.read_table(folder / PROGRESS / f"{job.name}.parquet", columns=["row", *SAMPLES])
        yield job, rows.filter(rows["row"].is_valid()).select(SAMPLES)


def totals(folder: Path, job: Job, entry: dict, samples: pa.Table, shape: Sequence[int]) -> dict:
    """One row of SHARDS: conservation, and mean and variance over all numbers of the shard."""
    with safe_open(folder / job.file, framework="pt") as shard:
        latents, captions = (shard.get_slice(name).get_shape() for name in ("latents", "input_ids"))
    means, stds = (samples[name].to_numpy().astype(np.float64) for name in ("mean", "std"))
    return {
        "shard": job.name,
        "rows": len(job.rows),
        "encoded and rejected": entry["count"] + entry["rejected"],
        "encoded": entry["count"],
        "latents": latents[0],
        "captions": captions[0],
        "shape": "x".join(map(str, latents[1:])),
        "shape of the set": "x".join(map(str, shape)),
        "mean": means.mean() if len(means) else None,
        "variance": (stds**2).mean() + means.var() if len(means) else None,
    }


def write_tables(folder: Path, jobs: Sequence[Job]) -> dict[str, int]:
    """Write manifest.parquet (CONTENTS, a row a sample in the order of the shards) and rejected.parquet (REJECTED);
    returns the number of the rejected by reason."""
    counts: dict[str, int] = {}
    kept, left = None, None
    with whole_file(folder / "manifest.parquet") as manifest, whole_file(folder / "rejected.parquet") as rejected:
        for job in jobs:
            rows = pq.read_table(folder / PROGRESS / f"{job.name}.parquet")
            rows = rows.append_column("file", pa.repeat(job.file, len(rows)))
            good = rows["row"].is_valid()
            tables = rows.filter(good).select(CONTENTS), rows.filter(pc.invert(good)).select(REJECTED)
            kept = kept or pq.ParquetWriter(manifest, tables[0].schema, compression="zstd")
            left = left or pq.ParquetWriter(rejected, tables[1].schema, compression="zstd")
            kept.write_table(tables[0])
            left.write_table(tables[1])
            for reason in tables[1]["reason"].to_pylist():
                counts[reason] = counts.get(reason, 0) + 1
        kept.close()
        left.close()
    return counts
