"""A student to evaluate."""

from pathlib import Path

import pytest
import torch

from slam.models.diffusion import load
from slam.models.export import export


@pytest.fixture(scope="session")
def random_student(random_teacher, tmp_path_factory) -> Path:
    """The teacher's folder with a U-Net that was pushed a little, exported as `select` does."""
    folder = tmp_path_factory.mktemp("student") / "student"
    torch.manual_seed(5)
    model = load(random_teacher)
    for weight in model.unet.parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    export(model, folder)
    return folder
