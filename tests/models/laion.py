"""The LAION head's network with random weights, as its repository builds and saves it."""

from pathlib import Path

import torch
from torch import nn

from slam.models.aesthetics import convert


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(768, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def five_layers(seed: int, scale: float = 1.0) -> Head:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head().eval().requires_grad_(False)
    for parameter in head.parameters():
        parameter *= scale
    return head


def save_head(network: Head, folder: Path) -> Path:
    """`network` as head.pth in `folder`, and what `convert` makes of it, whose path is returned."""
    torch.save(network.state_dict(), folder / "head.pth")
    convert(folder / "head.pth", folder / "aesthetics.safetensors")
    return folder / "aesthetics.safetensors"
