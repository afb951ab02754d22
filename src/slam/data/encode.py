"""Stage `encode`: the survivors' pictures to scaled VAE latents, their captions to token ids.

A shard of latents is a run of rows of the filter's manifest, all of one split. `encode_rows` makes it from those rows
and the tars alone, so it can be made again after a kill, or by another process.

N rows, C h w latent, H = W = resolution, L tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from slam.config import Encode
from slam.data.latents import identity
from slam.data.pictures import decode
from slam.data.records import Raw, open_pictures, read_raw
from slam.errors import SlamError
from slam.files import resumable_folder, sha256, whole_file, write_json
from slam.models.diffusion import LatentDiffusion, load
from slam.progress import progress

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SPLITS = ("train", "validation")
DONE = "done.json"  # in the unfinished folder: the index entries of its finished shards


class Job(NamedTuple):
    """One shard to make."""

    file: str
    split: str
    rows: pd.DataFrame  # of the filter's manifest


def encode_stage(config: Encode, teacher: str, raw: Path, filtered: Path, out: Path) -> dict:
    """Write the shards of latents, manifest.parquet and index.json into `out`; returns the counts.

    Shards that a killed run finished are kept if their sha256 still holds. Raises `SlamError` for a picture that is
    missing, broken or not the one that the manifest means.
    """
    source = read_raw(raw)
    manifest = filtered / "manifest.parquet"
    if not manifest.is_file():
        raise SlamError(f"{manifest} does not exist: run `slam filter` first")
    jobs = plan(pd.read_parquet(manifest), config.shard)
    parts = {part: identity(teacher, part) for part in ("vae", "tokenizer")}
    meant = {"config": config.model_dump(), "parts": parts, "manifest": sha256(manifest), "raw": str(source.shards)}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(teacher, parts=("vae", "tokenizer"), dtype=PRECISIONS[config.precision], device=device)
    _check_resolution(config.resolution, model)
    with resumable_folder(out, hashlib.sha256(json.dumps(meant).encode()).hexdigest()) as folder:
        entries = _shards(folder, jobs, source, model, config)
        pq.write_table(contents(jobs), folder / "manifest.parquet", compression="zstd")
        with safe_open(folder / jobs[0].file, framework="pt") as shard:
            shape = shard.get_slice("latents").get_shape()[1:]
        scaling = {"scaling_factor": model.vae.config.scaling_factor, "latent_shape": shape}
        write_json(folder / "index.json", {**parts, **scaling, "shards": entries})
        (folder / DONE).unlink()
    return {split: sum(len(job.rows) for job in jobs if job.split == split) for split in SPLITS} | {"shards": len(jobs)}


def plan(manifest: pd.DataFrame, size: int) -> list[Job]:
    """The manifest's rows in their order, split by split, `size` to a shard."""
    jobs = []
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        for number, start in enumerate(range(0, len(rows), size)):
            jobs.append(Job(f"{split}-{number:05d}.safetensors", split, rows[start : start + size]))
    return jobs


def contents(jobs: list[Job]) -> pa.Table:
    """Where each sample is, and what it was made of: one row a sample, in the order of the shards."""
    columns = ["split", "key", "caption", "sha256"]
    tables = [job.rows[columns].assign(file=job.file, row=np.arange(len(job.rows))) for job in jobs]
    return pa.Table.from_pandas(pd.concat(tables), preserve_index=False)


def _check_resolution(resolution: int, model: LatentDiffusion) -> None:
    factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
    if resolution % factor:
        raise SlamError(f"encode.resolution = {resolution} must be a multiple of {factor}: the VAE shrinks by that")


def _shards(folder: Path, jobs: list[Job], source: Raw, model: LatentDiffusion, config: Encode) -> list[dict]:
    """Make the shards that `folder` does not hold; the index entries of all."""
    done = _finished(folder)
    with progress(label="encode", total=sum(len(job.rows) for job in jobs)) as bar:
        for job in jobs:
            if job.file in done:
                bar.update(len(job.rows))
                continue
            with whole_file(folder / job.file) as partial:
                save_file(encode_rows(job.rows, source, model, config, bar.update), partial)
                entry = {"bytes": partial.stat().st_size, "sha256": sha256(partial)}
            done[job.file] = {"file": job.file, "split": job.split, "count": len(job.rows), **entry}
            write_json(folder / DONE, done)
    return [done[job.file] for job in jobs]


def _finished(folder: Path) -> dict[str, dict]:
    """The index entries of the shards in `folder` that are whole."""
    if not (folder / DONE).is_file():
        return {}
    entries = json.loads((folder / DONE).read_text(encoding="utf-8"))
    return {
        file: entry
        for file, entry in entries.items()
        if (folder / file).is_file() and sha256(folder / file) == entry["sha256"]
    }


def encode_rows(
    rows: pd.DataFrame, source: Raw, model: LatentDiffusion, config: Encode, update: Callable[[int], object]
) -> dict[str, Tensor]:
    """{"latents": float16 [N, C, h, w], "input_ids": int32 [N, L]}. Calls `update` with the number of each batch."""
    latents = []
    pictures = read_pictures(rows, source)
    for start in range(0, len(rows), config.batch):
        batch = [_square(next(pictures), config.resolution) for _ in range(min(config.batch, len(rows) - start))]
        pixels = torch.from_numpy(np.stack(batch)).to(model.vae.device, model.vae.dtype) / 127.5 - 1
        with torch.inference_mode():
            encoded = model.encode(pixels.permute(0, 3, 1, 2))
        if not torch.isfinite(encoded).all():
            raise SlamError(
                f"the VAE gave values that are not finite for keys {rows['key'].iloc[start]} and on: "
                f"encode.precision = {config.precision} is too narrow for it, use fp32"
            )
        latents.append(encoded.to("cpu", torch.float16))
        update(len(batch))
    return {
        "latents": torch.cat(latents).contiguous(),
        "input_ids": model.tokenize(list(rows["caption"])).to(torch.int32),
    }


def read_pictures(rows: pd.DataFrame, source: Raw) -> Iterator[Image.Image]:
    """The pictures of `rows`, in their order, checked against their sha256 where the tars hold the original bytes.

    img2dataset takes the sha256 of what it downloaded and then, unless told otherwise, encodes the picture again; of
    such a tar nothing but the picture's own decoding can be checked. `verbatim` in the source's index tells which.
    """
    for number, part in rows.groupby("shard", sort=False):
        shard = source.shards[number]
        with open_pictures(shard) as read:
            for key, member, offset, expected in part[["key", "member", "offset", "sha256"]].itertuples(index=False):
                content = read(member, offset)
                found = hashlib.sha256(content).hexdigest()
                if source.verbatim and found != expected:
                    raise SlamError(f"shard {shard.name}, key {key}: expected sha256 {expected}, found {found}")
                yield decode(content, f"shard {shard.name}, key {key}")


def _square(image: Image.Image, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the short side resized to `side`, the centre cut out."""
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
