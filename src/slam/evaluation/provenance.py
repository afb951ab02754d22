"""What went into a number: all of it goes into its record, and most of it into the hash of its protocol."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from slam.config import Evaluate
from slam.evaluation.observe import Instruments
from slam.evaluation.reference import Reference


def facts(config: Evaluate, reference: Reference, instruments: Instruments) -> dict[str, Any]:
    """What fixes a table's numbers besides the protocol itself; of files their sha256."""
    return {
        "n": len(reference.captions),
        "seed": config.seed,
        "dtype": config.precision,  # of the networks that draw
        "captions_sha256": reference.captions_sha256(),
        "reference_sha256": reference.pictures_sha256(),
        "reference_pictures": len(reference.images),
        "features_sha256": instruments.network.sha256,
        "resolution": instruments.network.resolution,  # pixels that every picture is brought to before the features
        "clip_sha256": weights_sha256(instruments.clip.model),
        "judge_sha256": instruments.judge and weights_sha256(instruments.judge),
    }


def machine() -> dict[str, Any]:
    """Where numbers were taken: not in the hash, which has to be the same on every machine."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
    }


def weights_sha256(*modules: nn.Module) -> str:
    """Of every tensor's name and bytes, wherever the modules were loaded from."""
    total = sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
