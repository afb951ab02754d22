"""Trains the attribute classifier of the tiny world on its own pictures, a little blurred, noisy and faded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.models.judge import Judge
from slam.teacher.fit import fit


def train_judge(
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    *,
    steps: int = 3000,
    batch: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
) -> Judge:
    """A judge of pictures uint8 [N, 3, S, S] with class indices int64 [N, attributes], in the order of ATTRIBUTES."""
    torch.manual_seed(seed)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    judge = Judge(size=images.shape[-1])
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        logits = judge(degrade(images[rows].float(), generator))
        return sum(F.cross_entropy(logits[name], labels[rows, i]) for i, name in enumerate(logits))

    fit(judge, loss, steps=steps, lr=lr, weight_decay=0.01, label="judge")
    judge.calibrate(images[:4096])
    return judge.requires_grad_(False)


def degrade(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels [B, 3, S, S] in [0, 255], each blurred, faded, brightened and made noisy by its own random amount.

    A few-step picture or a VAE's reconstruction is a little soft: the judge has to read those too.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(pixels), 1, 1, 1, generator=generator)

    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.lerp(pixels, blurred, uniform(0, 1))
    pixels = 127.5 + uniform(0.92, 1.05) * (pixels - 127.5) + uniform(-8, 8)
    noise = torch.randn(pixels.shape, generator=generator)
    return (pixels + uniform(0, 8) * noise).clamp(0, 255)


@torch.inference_mode()
def accuracy(
    judge: Judge, images: np.ndarray | Tensor, labels: np.ndarray | Tensor, batch: int = 512
) -> dict[str, float]:
    """The share in [0, 1] of `images` uint8 [N, 3, S, S] whose attribute is read right, for each attribute."""
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    right = dict.fromkeys(judge.attributes, 0)
    for part, truth in zip(images.split(batch), labels.split(batch), strict=True):
        for i, (name, logits) in enumerate(judge(part).items()):
            right[name] += (logits.argmax(1) == truth[:, i]).sum().item()
    return {name: count / len(images) for name, count in right.items()}
