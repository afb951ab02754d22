"""A student to evaluate."""

from pathlib import Path

import pytest
import torch

from slam.config import Evaluate
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


@pytest.fixture
def config(random_judge, random_clip):
    return Evaluate(
        protocol="tiny",
        samples=16,
        steps=(1, 2),
        samplers=("ddim", "unipc"),
        teacher_steps=4,
        guidance=2.0,
        features=str(random_judge),
        clip=str(random_clip),
        judge=str(random_judge),
        batch=16,
        rows=3,
        seed=2,
    )
