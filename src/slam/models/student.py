"""The student: the teacher's U-Net, with an input for gamma if the conditioning asks for one."""

from __future__ import annotations

import copy

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from slam.models.diffusion import LAYOUT

GAMMA_FEATURES = 256
GAMMA_KEY = "time_embedding.cond_proj.weight"  # diffusers' slot `time_cond_proj_dim`; it has no bias


def gamma_features(gamma: Tensor, count: int = GAMMA_FEATURES) -> Tensor:
    """Fourier features [B, count] of gamma [B]: fourier(1 - gamma) - fourier(0).

    Exactly zero at gamma = 1, so that the projection drops out there, and continuous, so that a network near gamma = 1
    is near the network at gamma = 1. Frequencies of 0.5 to 16 radians, evenly in the logarithm.
    """
    frequencies = torch.logspace(-1, 4, count // 2, base=2, device=gamma.device)
    angle = (1 - gamma)[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos() - 1], dim=1)


def make_student(teacher: UNet2DConditionModel, conditioning: str) -> UNet2DConditionModel:
    """A trainable copy of the teacher; with `gamma` conditioning it has one more, zero-initialised, projection.

    At initialisation it equals the teacher bit for bit, whatever gamma.
    """
    if conditioning != "gamma":
        return copy.deepcopy(teacher).train().requires_grad_(True)
    student = UNet2DConditionModel.from_config({**teacher.config, "time_cond_proj_dim": GAMMA_FEATURES})
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    assert (missing, unexpected) == ([GAMMA_KEY], []), (missing, unexpected)
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student.to(teacher.device, memory_format=LAYOUT).train().requires_grad_(True)
