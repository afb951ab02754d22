"""The judge of the tiny world: reads every attribute from a picture, and gives the features of the Frechet distance.

B batch, S side of its input in pixels, F = 128 features.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slam.data.shapes import ATTRIBUTES, SIZE
from slam.errors import SlamError
from slam.files import read_json, whole_folder

FEATURES = 128
MADE_BY = "slam teacher"


class Judge(nn.Module):
    """Strided convolutions to 4x4, then one linear layer: unlike an average over places, that still sees positions.

    `attributes` names each attribute and its classes. No normalisation layer: absolute colour is what it must read.
    """

    def __init__(self, attributes: dict[str, tuple[str, ...]] = ATTRIBUTES, size: int = SIZE) -> None:
        super().__init__()
        self.attributes = {name: tuple(classes) for name, classes in attributes.items()}
        self.size = size
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.project = nn.Linear(128 * (size // 8) ** 2, FEATURES)
        self.register_buffer("scale", torch.ones(()))  # of the features, so that their variance is 1 on real pictures
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(c)) for name, c in self.attributes.items()})

    def features(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, S, S] in [0, 255], uint8 or float, to features [B, F], of unit variance after `calibrate`."""
        return self._projected(pixels) / self.scale

    @torch.inference_mode()
    def calibrate(self, pixels: Tensor) -> None:
        """Set the scale by real pictures [N, 3, S, S], so that a Frechet distance can be read without its context."""
        self.scale.fill_(torch.cat([self._projected(part) for part in pixels.split(512)]).var(0).mean().sqrt().item())

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels [B, 3, S, S] in [0, 255] to the logits [B, classes] of each attribute."""
        features = F.silu(self._projected(pixels))
        return {name: head(features) for name, head in self.heads.items()}

    def _projected(self, pixels: Tensor) -> Tensor:
        return self.project(self.convolutions(pixels.float() / 127.5 - 1))

    @torch.inference_mode()
    def read(self, pixels: Tensor) -> list[dict[str, str]]:
        """What the judge sees in each picture: for every attribute the name of its likeliest class."""
        chosen = {name: logits.argmax(1).tolist() for name, logits in self(pixels).items()}
        return [{name: self.attributes[name][chosen[name][i]] for name in chosen} for i in range(len(pixels))]

    def save(self, folder: str | Path) -> None:
        """Writes `model.safetensors` (float16) and `config.json`."""
        weights = {key: value.half().contiguous() for key, value in self.state_dict().items()}
        with whole_folder(folder) as partial:
            save_file(weights, partial / "model.safetensors")
            config = {"attributes": self.attributes, "size": self.size}
            (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """The judge kept in `folder`, in float32 and eval mode. Raises `SlamError` when it is not whole."""
        folder = Path(folder)
        config = read_json(folder / "config.json", MADE_BY)
        try:
            judge = cls(config["attributes"], config["size"])
            judge.load_state_dict(load_file(folder / "model.safetensors"))
        except (KeyError, OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise SlamError(
                f"{folder}: expected a judge (config.json and model.safetensors), found {reason}; run `{MADE_BY}` again"
            ) from None
        return judge.eval().requires_grad_(False)
