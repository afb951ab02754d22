"""Pictures from prompts, as `slam generate` and a served model draw them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slam.evaluation.generate import generate
from slam.models.diffusion import load
from slam.models.drawing import Painter, WrongRequestError
from slam.models.export import export


@pytest.fixture(scope="module")
def student(random_teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing") / "student"
    export(load(random_teacher), folder)
    return folder


@pytest.fixture(scope="module")
def painter(student):
    return Painter(student)


def arrays(pictures) -> list[np.ndarray]:
    return [np.asarray(picture) for picture in pictures]


def test_pictures_are_those_of_an_evaluation_up_to_a_level_in_255(student, painter):
    prompts = ["a large red circle", "a small blue square"]
    (ours,) = generate(load(student), prompts, sampler="lcm", steps=2, seed=5, batch=2, label="test")
    theirs = np.stack(arrays(painter.draw(prompts, steps=2, seed=5)))
    assert np.abs(theirs.astype(int) - ours.pictures.permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1


def test_several_pictures_of_a_prompt_differ_and_the_first_is_the_one_alone(painter):
    alone = arrays(painter.draw(["a red circle"], steps=1))
    several = arrays(painter.draw(["a red circle"], steps=1, images=3))
    assert np.abs(several[0].astype(int) - alone[0].astype(int)).max() <= 1  # the batch is another
    assert len({picture.tobytes() for picture in several}) == 3


def test_the_size_may_differ_from_the_trained_one(painter):
    (picture,) = painter.draw(["a red circle"], steps=1, height=64, width=16)
    assert picture.size == (16, 64)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompts": [" "]}, "prompt 0 is empty"),
        ({"prompts": ["a", None]}, "prompt 1 is empty"),
        ({"steps": 0}, "steps = 0: expected 1 to 50"),
        ({"steps": 51}, "steps = 51: expected 1 to 50"),
        ({"seed": -1}, "seed = -1: expected 0 to"),
        ({"images": 0}, "images = 0: expected 1 to 64"),
        ({"prompts": ["a", "b"], "images": 33}, "prompts x images = 66: expected 1 to 64"),
        ({"prompts": []}, "prompts x images = 0"),
        ({"height": 8}, "height = 8: expected 16 to 64"),
        ({"width": 36}, "width = 36: expected a multiple of 8"),
        ({"guidance": float("nan")}, "guidance = nan: expected 1 to 100"),
    ],
)
def test_what_cannot_be_drawn_is_said(asked, says, painter):
    with pytest.raises(WrongRequestError, match=says):
        painter.draw(**{"prompts": ["a red circle"], **asked})


def test_requests_at_once_do_not_disturb_each_other(painter):
    """A pipeline's scheduler counts its steps."""
    alone = {steps: arrays(painter.draw(["a red circle"], steps=steps)) for steps in (1, 2, 3, 4)}
    with ThreadPoolExecutor(4) as pool:
        for steps, drawn in pool.map(
            lambda steps: (steps, painter.draw(["a red circle"], steps=steps)), [1, 2, 3, 4] * 3
        ):
            np.testing.assert_array_equal(arrays(drawn), alone[steps])


def test_a_blank_picture_is_an_error(student, tmp_path):
    export(load(student), tmp_path / "blank")
    file = tmp_path / "blank" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({key: torch.zeros_like(value) for key, value in load_file(file).items()}, file)
    with pytest.raises(RuntimeError, match="picture 0 is blank"):
        Painter(tmp_path / "blank").draw(["a red circle"], steps=1)
