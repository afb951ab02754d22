"""The tiny teacher's autoencoder: 32x32 pictures to 4x8x8 latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from slam.teacher.fit import fit


def train_vae(
    images: Tensor,
    *,
    channels: list[int],
    steps: int,
    batch: int,
    lr: float,
    kl: float,
    seed: int,
    latent_channels: int = 4,
):
    """An `AutoencoderKL` for `images` uint8 [N, 3, H, W], its scaling factor set so that latents have unit variance.

    One group in the group norm: several groups of few channels would erase the absolute colour.
    """
    torch.manual_seed(seed)
    levels = len(channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=1,
        sample_size=images.shape[-1],
    )
    generator = torch.Generator().manual_seed(seed)

    def loss(_: int) -> Tensor:
        x = to_unit(images[torch.randint(len(images), (batch,), generator=generator)])
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        reconstruction = vae.decode(posterior.mean + posterior.std * noise).sample
        return F.mse_loss(reconstruction, x) + kl * posterior.kl().mean() / posterior.mean[0].numel()

    fit(vae, loss, steps=steps, lr=lr, label="vae")
    with torch.inference_mode():
        latents = vae.encode(to_unit(images[:2048])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def to_unit(images: Tensor) -> Tensor:
    """uint8 to the VAE's range, [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.inference_mode()
def psnr(vae: AutoencoderKL, images: Tensor, batch: int = 128) -> float:
    """Peak signal-to-noise ratio of reconstructions in dB, mean squared error over all `images` uint8 [N, 3, H, W]."""
    squared = 0.0
    for part in images.split(batch):
        x = to_unit(part)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        squared += (((x - y) / 2) ** 2).sum().item()
    return -10 * torch.tensor(squared / images.numel()).log10().item()
