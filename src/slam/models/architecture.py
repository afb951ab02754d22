"""Models of a known architecture with random weights: what computing with them costs does not depend on the weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from slam.models.diffusion import LAYOUT, LatentDiffusion

FOLDER = Path(__file__).with_name("architectures")  # the public config.json of each part


class Tokens:
    """Stands for CLIP's tokenizer, whose file is not here: every caption is the empty one."""

    def __init__(self, config: CLIPTextConfig) -> None:
        self.config, self.model_max_length = config, config.max_position_embeddings

    def __call__(self, captions: list[str], **options: object) -> SimpleNamespace:
        ids = torch.full((len(captions), self.model_max_length), self.config.eos_token_id)
        ids[:, 0] = self.config.bos_token_id
        return SimpleNamespace(input_ids=ids)


def random_model(name: str, device: str | torch.device = "cpu", side: int | None = None) -> LatentDiffusion:
    """U-Net, text encoder and schedule of the architecture `name` ("sd15"), float32, for latents of `side`."""
    parts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    unet = {**parts["unet"], "sample_size": side or parts["unet"]["sample_size"]}
    text = CLIPTextConfig(**parts["text_encoder"])
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        networks = UNet2DConditionModel(**unet), CLIPTextModel(text)
    unet, text_encoder = (_ready(network) for network in networks)
    return LatentDiffusion(
        name,
        text_encoder=text_encoder,
        tokenizer=Tokens(text),
        unet=unet,
        scheduler=DDIMScheduler(**parts["scheduler"]),
    )


def empty_like(model: LatentDiffusion) -> LatentDiffusion:
    """`model` without its numbers: on the device "meta", where a pass computes shapes alone."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(model.unet.config)
        text_encoder = CLIPTextModel(model.text_encoder.config)
    return LatentDiffusion(
        model.name,
        text_encoder=_ready(text_encoder),
        tokenizer=model.tokenizer,
        unet=_ready(unet),
        scheduler=model.scheduler,
    )


def _ready(network: nn.Module) -> nn.Module:
    return network.to(memory_format=LAYOUT).eval().requires_grad_(False)


def token_ids(model: LatentDiffusion, batch: int, generator: torch.Generator) -> Tensor:
    """Random ids int64 [batch, L]: a text encoder takes its time whatever they say."""
    config = model.text_encoder.config
    return torch.randint(0, config.vocab_size, (batch, config.max_position_embeddings), generator=generator)
