"""A whole small evaluation: a set of pictures, instruments with random weights, a student."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from slam.data import shapes
from slam.files import write_json
from slam.models.diffusion import load
from slam.models.export import export
from slam.models.judge import Judge


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
def random_student(random_teacher, tmp_path_factory) -> Path:
    """The teacher's folder with a U-Net that was pushed a little, exported as `select` does."""
    folder = tmp_path_factory.mktemp("student") / "student"
    torch.manual_seed(5)
    model = load(random_teacher)
    for weight in model.unet.parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    export(model, folder)
    return folder
