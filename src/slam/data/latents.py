"""What the encode stage leaves, read for training: latents and token ids by index, and the order of an epoch.

N samples of a split, B batch, C h w latent, L tokens.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from slam.errors import SlamError
from slam.files import read_json, sha256, verify

MADE_BY = "slam encode"


class Latents:
    """The samples of one split, in the manifest's order. The shards are mapped, not read: memory holds what is used.

    Opening reads every shard once, to verify its sha256; `SlamError` when one differs or is missing.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder, self.split = Path(folder), split
        self.index = read_json(self.folder / "index.json", MADE_BY)
        shards = [shard for shard in self.index["shards"] if shard["split"] == split]
        if not shards:
            splits = sorted({shard["split"] for shard in self.index["shards"]})
            raise SlamError(f"{folder}: expected a split {split!r}, found {', '.join(splits) or 'none'}")
        for shard in shards:
            verify(self.folder / shard["file"], shard["sha256"], MADE_BY)
        self._starts = np.cumsum([0] + [shard["count"] for shard in shards])  # first sample of each shard, then N
        self._shards = [_open(self.folder / shard["file"]) for shard in shards]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents float32 [B, C, h, w] and token ids int64 [B, L] of the samples `indices` [B] in [0, N)."""
        indices = np.asarray(indices)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"sample {indices.min()} or {indices.max()} of {len(self)}")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        row = indices - self._starts[shard]
        latents, input_ids = self._shards[0]
        out = torch.empty(len(indices), *latents.shape[1:]), torch.empty(len(indices), input_ids.shape[1]).long()
        for s in np.unique(shard):
            here = np.flatnonzero(shard == s)
            rows = torch.from_numpy(row[here])
            for into, stored in zip(out, self._shards[s], strict=True):
                into[torch.from_numpy(here)] = stored[rows].to(into.dtype)
        return out

    def captions(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        return self._captions.take(np.asarray(indices)).to_pylist()

    @functools.cached_property
    def _captions(self):
        filters = [("split", "=", self.split)]
        return pq.read_table(self.folder / "manifest.parquet", columns=["caption"], filters=filters)["caption"]


def _open(file: Path) -> tuple[Tensor, Tensor]:
    """The latents [N, C, h, w] and token ids [N, L] of a shard, mapped from the disk."""
    with safe_open(file, framework="pt") as shard:
        return shard.get_tensor("latents"), shard.get_tensor("input_ids")


def batch_indices(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """int64 [batch]: the samples of step `step` (counted from 0), a function of the arguments alone.

    Each epoch is a permutation of the `n` samples, from (seed, epoch). Batches follow each other through the epochs
    without a gap, so a batch may hold the end of one epoch and the start of the next. This is the global batch:
    ranks take their slices of it.
    """
    position = step * batch + np.arange(batch)
    epoch, place = np.divmod(position, n)
    return np.concatenate([_permutation(n, seed, int(e))[place[epoch == e]] for e in np.unique(epoch)])


@functools.lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def identity(teacher: str, part: str) -> dict:
    """{"name", "sha256"} of the part ("vae", "tokenizer") of a teacher: latents of one VAE are noise to another.

    The hash is over the files of a local folder, by name; None for a hub id, whose name then stands for it.
    """
    folder = Path(teacher) / part
    if not folder.is_dir():
        return {"name": teacher, "sha256": None}
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".txt") and file.is_file():
            digest.update(f"{file.name} {sha256(file)}\n".encode())
    return {"name": teacher, "sha256": digest.hexdigest()}
