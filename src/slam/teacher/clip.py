"""The tiny teacher's CLIP: its text tower conditions the U-Net, both towers give the CLIP score."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from slam.teacher.fit import fit
from slam.teacher.tokenizer import LENGTH
from slam.teacher.vae import to_unit


def train_clip(
    images: Tensor,
    input_ids: Tensor,
    tokenizer: CLIPTokenizer,
    *,
    width: int,
    layers: int,
    heads: int,
    tower_width: int,
    tower_layers: int,
    patch: int,
    projection: int,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> CLIPModel:
    """Contrastive training on `images` uint8 [N, 3, H, W] with their captions `input_ids` [N, L]."""
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=tower_width,
        intermediate_size=4 * tower_width,
        num_hidden_layers=tower_layers,
        num_attention_heads=heads,
        image_size=images.shape[-1],
        patch_size=patch,
    )
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=projection))
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        return clip(input_ids=input_ids[rows], pixel_values=to_unit(images[rows]), return_loss=True).loss

    fit(clip, loss, steps=steps, lr=lr, label="clip", weight_decay=0.02, warmup=0.1)
    return clip


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as Stable Diffusion's `text_encoder`."""
    tower = CLIPTextModel(clip.config.text_config)
    own = tower.state_dict()
    weights = {name.removeprefix("text_model."): value for name, value in clip.text_model.state_dict().items()}
    tower.load_state_dict({name: weights[name.removeprefix("text_model.")] for name in own})
    return tower.eval()
