"""What the encode stage leaves, read for training: latents and token ids by index, and the order of an epoch.

N samples of a split, B batch, C h w latent, L tokens.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from slam.data.verified import verify_once
from slam.errors import SlamError
from slam.files import read_json, sha256

MADE_BY = "slam encode"
FEW = 32  # samples: 1 MiB of Stable Diffusion's


class Shard(NamedTuple):
    """The tensors of a file, mapped from the disk."""

    latents: np.ndarray  # [N, C, h, w]
    input_ids: np.ndarray  # [N, L]
    std: np.ndarray | None  # [N, C, h, w], where the posterior's moments are stored; `latents` is then its mean


class Latents:
    """The samples of one split, in the manifest's order. The shards are mapped, not read: memory holds what is used.

    The sha256 of a shard is verified when it is opened for the first time, and again when the file was written to
    since (`slam.data.verified`); `SlamError` when one differs or is missing.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder, self.split = Path(folder), split
        self.index = read_json(self.folder / "index.json", MADE_BY)
        shards = [shard for shard in self.index["shards"] if shard["split"] == split]
        if not shards:
            splits = sorted({shard["split"] for shard in self.index["shards"]})
            raise SlamError(f"{folder}: expected a split {split!r}, found {', '.join(splits) or 'none'}")
        verify_once(self.folder, {shard["file"]: shard["sha256"] for shard in shards}, MADE_BY)
        self._starts = np.cumsum([0] + [shard["count"] for shard in shards])  # first sample of each shard, then N
        self._shards = [_open(self.folder / shard["file"]) for shard in shards]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def has_std(self) -> bool:
        """Whether the posterior's standard deviation is stored beside its mean."""
        return self._shards[0].std is not None

    def gather(self, indices: Sequence[int] | np.ndarray, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents float32 [B, C, h, w] and token ids int64 [B, L] of the samples `indices` [B] in [0, N).

        Where a standard deviation is stored: the posterior's mean, or with `noise` [B, C, h, w], mean + std * noise.
        """
        places = self._places(indices)
        latents, input_ids = self._read(places, 0, np.float32), self._read(places, 1, np.int64)
        if noise is not None:
            latents += self._read(places, 2, np.float32) * noise
        return latents, input_ids

    def input_ids(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Token ids int64 [B, L] alone."""
        return self._read(self._places(indices), 1, np.int64)

    def _places(self, indices: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
        """Shard and row of each sample."""
        indices = np.asarray(indices)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"sample {indices.min()} or {indices.max()} of {len(self)}")
        shard = np.searchsorted(self._starts, indices, side="right") - 1
        return list(zip(shard.tolist(), (indices - self._starts[shard]).tolist(), strict=True))

    def _read(self, places: Sequence[tuple[int, int]], part: int, dtype: type) -> Tensor:
        """Field `part` of the samples at `places` (shard, row), as `dtype`.

        A sample lies in one piece, so each is one copy from the map, whatever number of shards a batch touches. A few
        at a time, so that they are still in the cache when they are widened; into an array of NumPy's, which asks for
        huge pages: a fresh 64 MiB in pages of 4 KiB takes longer than the reading.
        """
        parts = [shard[part] for shard in self._shards]
        out = np.empty((len(places), *parts[0].shape[1:]), dtype)
        few = np.empty((min(FEW, len(places)), *parts[0].shape[1:]), parts[0].dtype)
        wide, narrow = torch.from_numpy(out), torch.from_numpy(few)
        for start in range(0, len(places), FEW):
            chunk = places[start : start + FEW]
            for i, (shard, row) in enumerate(chunk):
                few[i] = parts[shard][row]
            wide[start : start + len(chunk)] = narrow[: len(chunk)]
        return wide

    def captions(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        return self._captions.take(np.asarray(indices)).to_pylist()

    @functools.cached_property
    def _captions(self):
        filters = [("split", "=", self.split)]
        return pq.read_table(self.folder / "manifest.parquet", columns=["caption"], filters=filters)["caption"]


def _open(file: Path) -> Shard:
    with safe_open(file, framework="pt") as shard:  # of PyTorch, because only its tensors are mapped
        names = shard.keys()
        std = shard.get_tensor("latents_std").numpy() if "latents_std" in names else None
        return Shard(shard.get_tensor("latents").numpy(), shard.get_tensor("input_ids").numpy(), std)


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
