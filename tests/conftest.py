"""What many tests share: small real models."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from slam.data import shapes
from slam.files import write_json
from slam.teacher.build import model_index
from slam.teacher.tokenizer import LENGTH, train_tokenizer
from slam.teacher.unet import SCHEDULE, make_unet


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what this tree computes")


@pytest.fixture(scope="session")
def random_teacher(tmp_path_factory) -> Path:
    """A Stable-Diffusion-shaped folder with random weights: 32x32 pictures, 4x8x8 latents."""
    folder = tmp_path_factory.mktemp("random_teacher")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(shapes.draw(500, 0).captions)
    tokenizer.save_pretrained(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=1,
        sample_size=32,
        scaling_factor=0.5,
    ).save_pretrained(folder / "vae")
    make_unet([16, 32], (4, 8, 8), 32).save_pretrained(folder / "unet")
    DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1).save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", model_index())
    return folder
