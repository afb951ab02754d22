import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import settings

from slam.core.schedule import make_schedule
from slam.teacher.unet import SCHEDULE

settings.register_profile("repeatable", derandomize=True, deadline=None)  # the same examples in every run
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def schedule():
    """Stable Diffusion's."""
    return make_schedule(DDIMScheduler(**SCHEDULE).alphas_cumprod)


@pytest.fixture
def batch():
    """z0, noise [B, C, h, w], c [B, L, D] for B = 6."""
    g = torch.Generator().manual_seed(0)
    shape = (6, 2, 3, 3)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g), torch.randn(6, 1, 1, generator=g)
