"""What many tests share: small real models and data."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

from slam.data import shapes
from slam.data.latents import identity
from slam.files import sha256, write_json
from slam.models.diffusion import load
from slam.models.judge import Judge
from slam.teacher.build import model_index
from slam.teacher.tokenizer import LENGTH, train_tokenizer
from slam.teacher.unet import SCHEDULE, make_unet
from tests.faults.summary import pytest_terminal_summary  # noqa: F401
from tests.models.laion import five_layers, save_head


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what this tree computes")
    parser.addoption("--nightly", action="store_true", help="run the long form of tests too: hours")


def pytest_configure(config):
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker, and for what its tests start
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--nightly"):
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]


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


@pytest.fixture(scope="session")
def latents(random_teacher, tmp_path_factory) -> Path:
    """96 random latents with real captions for training and 16 held out, as the encode stage leaves them."""
    folder, shards = tmp_path_factory.mktemp("latents"), []
    for seed, (split, count) in enumerate({"train": 96, "validation": 16}.items()):
        ids = load(random_teacher, ("tokenizer",)).tokenize(shapes.draw(count, 3 + seed).captions)
        values = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        file = folder / f"{split}-00000.safetensors"
        save_file({"latents": values.half(), "input_ids": ids.int()}, file)
        shard = {"file": file.name, "split": split, "count": count, "bytes": file.stat().st_size}
        shards.append(shard | {"sha256": sha256(file)})
    parts = {part: identity(str(random_teacher), part) for part in ("vae", "tokenizer")}
    write_json(folder / "index.json", {**parts, "scaling_factor": 0.5, "latent_shape": [4, 8, 8], "shards": shards})
    return folder


@pytest.fixture(scope="session")
def evaluation_set(tmp_path_factory) -> Path:
    """24 pictures of the tiny world as `slam source` leaves them, for the stage `evaluate`."""
    folder = tmp_path_factory.mktemp("evaluation")
    pictures = shapes.draw(24, 11)
    (folder / "images").mkdir()
    images, annotations = [], []
    for i, (image, caption) in enumerate(zip(pictures.images, pictures.captions, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{i:06d}.png")
        images.append({"id": i, "file_name": f"{i:06d}.png"})
        annotations.append({"image_id": i, "id": i, "caption": caption})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    write_json(folder / "index.json", {"captions": "captions.json", "images": "images"})
    return folder


@pytest.fixture(scope="session")
def random_judge(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "judge"
    torch.manual_seed(3)
    Judge().save(folder)
    return folder


@pytest.fixture(scope="session")
def random_clip(random_teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(4)
    tokenizer = load(random_teacher, ("tokenizer",)).tokenizer
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**shared, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    vision = {**shared, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def aesthetics_clip(tmp_path_factory) -> Path:
    """A CLIP that embeds as ViT-L/14 does, in 768 numbers, and is random and small otherwise."""
    folder = tmp_path_factory.mktemp("aesthetics_clip")
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, vision = (
        {**shared, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1},
        {**shared, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(5)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def aesthetics_head(tmp_path_factory) -> Path:
    """The head of `five_layers(7)`, converted."""
    return save_head(five_layers(7), tmp_path_factory.mktemp("aesthetics_head"))
