"""`slam teacher`: train the embedded teacher from nothing, part by part, into a diffusers folder.

Each part appears whole; the same command again goes on with the next missing part. Weights are stored in half
precision and used in single.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from slam.data import shapes
from slam.errors import SlamError
from slam.files import whole_folder, write_json
from slam.models.diffusion import load
from slam.teacher.clip import text_tower, train_clip
from slam.teacher.judge import accuracy, train_judge
from slam.teacher.tokenizer import train_tokenizer
from slam.teacher.unet import SCHEDULE, train_unet
from slam.teacher.vae import psnr, to_unit, train_vae

PARTS = ("tokenizer", "judge", "clip", "text_encoder", "vae", "unet", "scheduler")


def build(folder: Path, parts: tuple[str, ...] = PARTS) -> dict:
    """Train each of `parts` that `folder` lacks, by its `recipe.yaml`; returns what was measured of each."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise SlamError(f"--part {unknown[0]} is not one of {', '.join(PARTS)}")
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SlamError(f"{folder}/recipe.yaml does not exist: it says how to train each part") from None
    makers: dict[str, Callable[[Path, dict, Path], dict]] = {
        "tokenizer": _tokenizer,
        "judge": _judge,
        "clip": _clip,
        "text_encoder": _text_encoder,
        "vae": _vae,
        "unet": _unet,
        "scheduler": _scheduler,
    }
    measured = {}
    for part in PARTS:
        if part in parts and not (folder / part).exists():
            with whole_folder(folder / part) as out:
                measured[part] = makers[part](folder, recipe, out)
    if all((folder / part).exists() for part in PARTS):
        write_json(folder / "model_index.json", model_index())
    return measured


def _world(recipe: dict) -> tuple[shapes.Pictures, Tensor]:
    """The pictures that the teacher learns from, and as uint8 [N, 3, H, W]."""
    pictures = shapes.draw(recipe["world"]["pictures"], recipe["world"]["seed"])
    return pictures, _channels_first(pictures)


def _held_out(recipe: dict) -> tuple[shapes.Pictures, Tensor]:
    pictures = shapes.draw(recipe["world"]["held_out"], recipe["world"]["seed"] + 1)
    return pictures, _channels_first(pictures)


def _channels_first(pictures: shapes.Pictures) -> Tensor:
    return torch.from_numpy(pictures.images).permute(0, 3, 1, 2).contiguous()


def _ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def _tokenizer(folder: Path, recipe: dict, out: Path) -> dict:
    tokenizer = train_tokenizer(_world(recipe)[0].captions)
    tokenizer.save_pretrained(out)
    return {"tokens": len(tokenizer)}


def _judge(folder: Path, recipe: dict, out: Path) -> dict:
    pictures, images = _world(recipe)
    judge = train_judge(images, torch.from_numpy(pictures.labels), **recipe["judge"])
    judge.save(out)
    pictures, images = _held_out(recipe)
    return accuracy(judge, images, torch.from_numpy(pictures.labels))


def _clip(folder: Path, recipe: dict, out: Path) -> dict:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pictures, images = _world(recipe)
    clip = train_clip(images, _ids(tokenizer, pictures.captions), tokenizer, **recipe["clip"])
    clip.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    side = {"height": images.shape[-2], "width": images.shape[-1]}
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(
        size={"shortest_edge": side["height"]}, crop_size=side, image_mean=half, image_std=half
    ).save_pretrained(out)
    return _retrieval(clip.float(), tokenizer, *_held_out(recipe))


@torch.inference_mode()
def _retrieval(clip: CLIPModel, tokenizer: CLIPTokenizer, pictures: shapes.Pictures, images: Tensor) -> dict:
    """The mean cosine of matching and of mismatched pairs, and how often the caption of 64 is the nearest."""
    output = clip(input_ids=_ids(tokenizer, pictures.captions), pixel_values=to_unit(images))
    image, text = output.image_embeds, output.text_embeds
    cosine = torch.stack([a @ b.T for a, b in zip(image.split(64), text.split(64), strict=True)])
    diagonal = cosine.diagonal(dim1=1, dim2=2)
    return {
        "cosine": diagonal.mean().item(),
        "cosine_shuffled": (image * text.roll(1, 0)).sum(-1).mean().item(),
        "nearest_of_64": (cosine.argmax(-1) == torch.arange(64)).float().mean().item(),
    }


def _text_encoder(folder: Path, recipe: dict, out: Path) -> dict:
    text_tower(CLIPModel.from_pretrained(folder / "clip", torch_dtype=torch.float16)).half().save_pretrained(out)
    return {}


def _vae(folder: Path, recipe: dict, out: Path) -> dict:
    vae = train_vae(_world(recipe)[1], **recipe["vae"])
    vae.half().save_pretrained(out)
    return {"psnr_db": psnr(vae.float(), _held_out(recipe)[1])}


def _unet(folder: Path, recipe: dict, out: Path) -> dict:
    model = load(folder, ("vae", "text_encoder", "tokenizer"))
    pictures, images = _world(recipe)
    with torch.inference_mode():
        latents = torch.cat([model.encode(to_unit(part)) for part in images.split(128)])
    unet = train_unet(
        latents.clone(),
        model.tokenize(pictures.captions),
        model.tokenize([""])[0],
        model.text_encoder,
        **recipe["unet"],
    )
    unet.half().save_pretrained(out)
    return {"parameters": sum(p.numel() for p in unet.parameters())}


def _scheduler(folder: Path, recipe: dict, out: Path) -> dict:
    DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1).save_pretrained(out)
    return {}


def model_index() -> dict:
    """diffusers' table of contents: a plain Stable Diffusion pipeline without a safety checker."""
    return {
        "_class_name": StableDiffusionPipeline.__name__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", DDIMScheduler.__name__],
        "text_encoder": ["transformers", CLIPTextModel.__name__],
        "tokenizer": ["transformers", CLIPTokenizer.__name__],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", AutoencoderKL.__name__],
    }
