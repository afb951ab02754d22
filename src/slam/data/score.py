"""Stage `score`: an aesthetics score for every picture whose metadata has none, by the LAION predictor.

For each shard it leaves a Parquet file of SCORES, a row for each picture that it looked at.
"""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from slam.ahead import ahead
from slam.config import Score
from slam.data.encode.pictures import threads_of
from slam.data.latents import identity
from slam.data.pictures import BrokenPicture, decode
from slam.data.records import Shard, contents, read_raw, read_records
from slam.data.room import room
from slam.data.scores import SCORES, unscored
from slam.errors import SlamError
from slam.files import resumable_folder, sha256, whole_file, whole_folder, write_json
from slam.models.aesthetics import Predictor, load_predictor
from slam.models.precision import PRECISIONS
from slam.progress import progress

AHEAD = 2  # batches that are read and decoded before CLIP takes them


def score_stage(config: Score | None, raw: Path, out: Path) -> dict:
    """Write a file for each shard and index.json into `out`; returns the counts. Without `config`: an empty index.

    Shards that a killed run finished are kept. Raises `SlamError` for a predictor that does not load, or gives
    values that are not finite, for a source without pictures, and for a full disk.
    """
    if config is None:
        with whole_folder(out) as folder:
            write_json(folder / "index.json", {"predictor": None, "shards": []})
        return {"scored": 0}
    source = read_raw(raw)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = load_predictor(config.clip, config.head, PRECISIONS[config.precision], device)
    parts = {"clip": identity(config.clip, ""), "head": {"name": config.head, "sha256": sha256(config.head)}}
    meant = {"config": config.model_dump(), "parts": parts, "raw": [_state(shard) for shard in source.shards]}
    with room(out), resumable_folder(out, hashlib.sha256(json.dumps(meant).encode()).hexdigest()) as folder:
        entries = []
        for shard in progress(source.shards, "score"):
            file = folder / f"{shard.name}.parquet"
            if not file.is_file():
                with whole_file(file) as partial:
                    pq.write_table(score_shard(shard, predictor, config.batch), partial, compression="zstd")
            found = pq.read_table(file, columns=["aesthetic"])["aesthetic"]
            counts = {"scored": len(found) - found.null_count, "broken": found.null_count}
            entries.append({"file": file.name, **counts, "sha256": sha256(file)})
        write_json(folder / "index.json", {"predictor": parts, "shards": entries})
    return {count: sum(entry[count] for entry in entries) for count in ("scored", "broken")}


def _state(shard: Shard) -> list:
    """What would be another shard: its places, the sizes of its files, when they were written."""
    files = [Path(place) for place in (shard.parquet, shard.tar) if place]
    return [shard.name, str(shard.images), [(str(file), (s := file.stat()).st_size, s.st_mtime_ns) for file in files]]


def score_shard(shard: Shard, predictor: Predictor, batch: int) -> pa.Table:
    """A row of SCORES, in the order of the keys, for each picture of `shard` that has no score in its metadata."""
    records = read_records(shard)
    rows = records.filter(unscored(records))

    def shown(found: tuple[str, bytes | BrokenPicture]) -> Tensor | BrokenPicture:
        where, content = found
        try:
            if isinstance(content, BrokenPicture):
                raise content
            return predictor.pixels([decode(content, where)])[0]
        except BrokenPicture as error:
            return error

    scores: list[float | None] = []
    broken: list[str | None] = []
    keys = rows["key"].to_pylist()
    places = zip(rows["member"].to_pylist(), rows["offset"].to_pylist(), strict=True)
    named = (
        (f"shard {shard.name}, key {key}", found) for key, found in zip(keys, contents(shard, places), strict=True)
    )
    seen = ahead(shown, named, depth=AHEAD * batch, threads=threads_of(1))
    while part := list(islice(seen, batch)):
        found = iter(
            _scores(predictor, [p for p in part if not isinstance(p, BrokenPicture)], shard, keys[len(scores)])
        )
        scores += [None if isinstance(p, BrokenPicture) else next(found) for p in part]
        broken += [str(p) if isinstance(p, BrokenPicture) else None for p in part]
    return pa.table(
        [rows["key"], rows["sha256"], pa.array(scores, pa.float32()), pa.array(broken, pa.string())], SCORES
    )


def _scores(predictor: Predictor, pixels: list[Tensor], shard: Shard, first: str) -> list[float]:
    if not pixels:
        return []
    found = predictor.score(torch.stack(pixels))
    if not torch.isfinite(found).all():
        raise SlamError(
            f"the predictor gave values that are not finite for keys {first} and on of {shard.name}: "
            "score.precision is too narrow for this CLIP, use fp32"
        )
    return found.tolist()
