"""The tiny teacher's U-Net: plain noise prediction on Stable Diffusion's schedule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from slam.teacher.fit import fit

SCHEDULE = {  # Stable Diffusion's
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
}


def make_unet(channels: list[int], latent: tuple[int, int, int], context: int) -> UNet2DConditionModel:
    """Stable Diffusion's U-Net in miniature, for latents (C, h, w) and text of width `context`.

    The first level has no attention: a third of the time saved.
    """
    below = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=latent[-1],
        in_channels=latent[0],
        out_channels=latent[0],
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * below),
        up_block_types=(*("CrossAttnUpBlock2D",) * below, "UpBlock2D"),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        cross_attention_dim=context,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def train_unet(
    latents: Tensor,
    input_ids: Tensor,
    empty: Tensor,
    text_encoder,
    *,
    channels: list[int],
    phases: list[dict],
    batch: int,
    ema: float,
    empty_share: float,
    snr: float,
    seed: int,
) -> UNet2DConditionModel:
    """Train on scaled `latents` [N, C, h, w] with captions `input_ids` [N, L]; `empty` [L] is the empty caption.

    A share `empty_share` of the captions is left empty, for guidance. The loss is weighed by
    min(SNR, `snr`) / SNR (Hang et al. 2023). Each of `phases` ({steps, lr}) is a warm-up and a cosine of its own, from
    the average that the one before ended with.
    """
    torch.manual_seed(seed)
    unet = make_unet(channels, tuple(latents.shape[1:]), text_encoder.config.hidden_size)
    schedule = DDPMScheduler(**SCHEDULE)
    ratio = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    weight = ratio.clamp(max=snr) / ratio
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(latents), (batch,), generator=generator)
        t = torch.randint(len(ratio), (batch,), generator=generator)
        noise = torch.randn(latents[rows].shape, generator=generator)
        dropped = torch.rand(batch, generator=generator) < empty_share
        with torch.no_grad():
            context = text_encoder(torch.where(dropped[:, None], empty, input_ids[rows]))[0]
        predicted = unet(schedule.add_noise(latents[rows], noise, t), t, context).sample
        return (weight[t] * F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))).mean()

    for phase in phases:
        fit(unet, loss, **phase, label="unet", ema=ema)
    return unet
