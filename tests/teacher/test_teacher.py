"""The command that makes the embedded teacher, and what the shipped one can do."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

from slam.data import shapes
from slam.errors import SlamError
from slam.models.diffusion import load
from slam.models.judge import Judge
from slam.teacher import build
from slam.teacher.judge import accuracy
from slam.teacher.vae import psnr

SHIPPED = Path("teachers/tiny")


@pytest.fixture(scope="module")
def held_out():
    pictures = shapes.draw(256, 77)
    return pictures, torch.from_numpy(pictures.images).permute(0, 3, 1, 2).contiguous()


def test_every_word_of_the_world_is_one_token_and_captions_fit():
    tokenizer = load(SHIPPED, ("tokenizer",)).tokenizer
    captions = shapes.draw(500, 5).captions
    for caption in captions:
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2
    longest = max(captions, key=lambda caption: len(caption.split()))
    assert len(tokenizer(longest).input_ids) <= tokenizer.model_max_length


def test_a_strange_word_is_spelled_out_and_not_lost():
    tokenizer = load(SHIPPED, ("tokenizer",)).tokenizer
    assert tokenizer.decode(tokenizer("a dragon").input_ids, skip_special_tokens=True).replace(" ", "") == "adragon"


def test_the_text_encoder_is_the_text_tower_of_the_clip():
    model = load(SHIPPED, ("text_encoder", "tokenizer"))
    ids = model.tokenize(["a large red circle on a blue background"])
    clip = CLIPModel.from_pretrained(SHIPPED / "clip", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.allclose(clip.text_model(ids).last_hidden_state, model.embed_tokens(ids), atol=1e-5)


def test_the_vae_reconstructs_held_out_pictures_at_30_db(held_out):
    assert psnr(load(SHIPPED, ("vae",)).vae, held_out[1]) > 30


def test_the_latents_have_unit_variance(held_out):
    model = load(SHIPPED, ("vae",))
    with torch.no_grad():
        latents = model.encode(held_out[1].float() / 127.5 - 1)
    assert latents.std().item() == pytest.approx(1, abs=0.05)


def test_the_judge_reads_held_out_pictures(held_out):
    pictures, images = held_out
    right = accuracy(Judge.load(SHIPPED / "judge"), images, torch.from_numpy(pictures.labels))
    assert min(right.values()) > 0.98


def test_the_teacher_weighs_at_most_16_mb():
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 16e6


@pytest.mark.slow
def test_the_teacher_draws_what_captions_name():
    """At least 90% of the named attributes, at 50 guided DDIM steps, in the plain diffusers pipeline."""
    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    captions = shapes.draw(128, 78).captions
    pictures = pipeline(
        captions,
        num_inference_steps=50,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    seen = Judge.load(SHIPPED / "judge").read((pictures * 255).round())
    named = [(shapes.named(caption), what) for caption, what in zip(captions, seen, strict=True)]
    right = [what[attribute] == value for words, what in named for attribute, value in words.items()]
    assert sum(right) / len(right) > 0.9


def test_every_part_is_trained_from_nothing_and_none_twice(tmp_path):
    recipe = yaml.safe_load((SHIPPED / "recipe.yaml").read_text())
    recipe["world"] = {"pictures": 128, "held_out": 128, "seed": 1}
    for part, values in recipe.items():
        if part != "world":
            values["batch"] = 4
            for phase in values.get("phases", [values]):
                phase["steps"] = 2
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert set(build.build(tmp_path)) == set(build.PARTS)
    weights = (tmp_path / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert build.build(tmp_path) == {}
    assert (tmp_path / "unet/diffusion_pytorch_model.safetensors").read_bytes() == weights
    StableDiffusionPipeline.from_pretrained(tmp_path)


def test_a_folder_without_a_recipe_or_a_part_that_is_not_one_is_refused(tmp_path):
    with pytest.raises(SlamError, match=r"recipe\.yaml does not exist"):
        build.build(tmp_path)
    with pytest.raises(SlamError, match="--part hat is not one of tokenizer, judge"):
        build.build(tmp_path, ("hat",))
