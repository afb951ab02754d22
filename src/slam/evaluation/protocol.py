"""What fixes the numbers of a table, as one hash. Two records with different hashes are never to be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

import torch
from torch import nn

VERSION = 1  # raised when a change of this package changes a number


@dataclass(frozen=True)
class Protocol:
    name: str
    n: int  # captions, one picture each
    seed: int
    precision: str  # of the networks that draw
    reference: str  # sha256 of the captions and of the reference pictures
    features: str  # sha256 of the Frechet features' weights
    resolution: int  # pixels that every picture is brought to before the features
    clip: str  # sha256 of the CLIP's weights
    clip_prefix: str
    judge: str | None  # sha256 of the judge's weights
    version: int = VERSION

    @property
    def hash(self) -> str:
        return digest(asdict(self))


def digest(value: object) -> str:
    """A short hash of anything that JSON can hold."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def weights_sha256(*modules: nn.Module) -> str:
    """Of every tensor's name and bytes, wherever the modules were loaded from."""
    total = sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
