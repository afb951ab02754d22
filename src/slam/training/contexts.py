"""The text encoder's work taken out of the loop, where a split is small: the context of each sample, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from slam.data.latents import Latents

BATCH = 64  # captions at a time, whatever the run's own batch: a resumed run makes the same bits
MIB = 2**20


class Encoded:
    """A split as `Latents` has it, but that it gathers contexts float32 [B, L, D] in place of token ids."""

    def __init__(self, data: Latents, embed: Callable[[Tensor], Tensor]) -> None:
        self.data, self.has_std = data, data.has_std
        parts = np.array_split(np.arange(len(data)), range(BATCH, len(data), BATCH))
        with torch.no_grad():
            self.contexts = torch.cat([embed(data.input_ids(part)).cpu() for part in parts])

    def __len__(self) -> int:
        return len(self.data)

    def gather(self, indices: Sequence[int] | np.ndarray, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latents, _ = self.data.gather(indices, noise)
        return latents, self.contexts[torch.as_tensor(indices)]


def encoded(data: Latents, embed: Callable[[Tensor], Tensor], null: Tensor, text_cache: int) -> Latents | Encoded:
    """`data` with its contexts, each of the size of `null` [1, L, D], if they take at most `text_cache` MiB; else
    `data` itself, whose token ids are embedded step by step."""
    return Encoded(data, embed) if fit(len(data), null, text_cache) else data


def fit(samples: int, null: Tensor, text_cache: int) -> bool:
    return samples * null.numel() * 4 <= text_cache * MIB
