"""The stage `select`: the kept checkpoint that draws best in few steps on held-out captions, not simply the last."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from slam.config import Select
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.evaluation.features import FeatureNetwork, load_features, rows
from slam.evaluation.frechet import Moments, frechet_distance, moments
from slam.evaluation.generate import generate
from slam.files import verify, write_json
from slam.models.diffusion import LatentDiffusion, load
from slam.models.embedding import PROJECTION, embedding_of
from slam.models.export import export
from slam.models.precision import PRECISIONS
from slam.models.student import load_weights, make_student, trained
from slam.progress import batches
from slam.training import checkpoint
from slam.training.plan import Plan, read_plan

MADE_BY = "slam train"
WHY = "least geometric mean, over the step counts, of the Frechet distance to VAE reconstructions of held-out pictures"


@dataclass(frozen=True)
class Exam:
    """What every checkpoint is put to: the same captions and noise, the same reference."""

    captions: list[str]
    network: FeatureNetwork
    reference: Moments
    config: Select
    guidance: float  # that the student is told; 1 for one with a fixed scale


def select_stage(
    config: Select, features: str, teacher: str, train: Path, latents: Path, student: Path, selection: Path
) -> dict:
    """Writes `student`, a diffusers folder, and `selection`, JSON: what every checkpoint measured, and the choice."""
    checkpoints = find_checkpoints(train)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_features(features, device)
    model = load(teacher, dtype=PRECISIONS[config.precision], device=device)
    held_out = Latents(latents, "validation")
    if len(held_out) < config.samples:
        raise SlamError(
            f"{latents}: expected select.samples = {config.samples} validation pictures, found {len(held_out)};"
            " lower select.samples or raise filter.validation"
        )
    plan = read_plan(train)
    model = with_student(model, plan)
    captions = list(held_out.captions(np.arange(config.samples)))
    exam = Exam(
        captions,
        network,
        reconstructions(model, held_out, network, config.batch),
        config,
        plan.distill.w if model.told_w else 1.0,
    )
    measured = [
        examine(model, folder, average, exam) for folder in checkpoints for average in checkpoint.average_files(folder)
    ]
    best = min(measured, key=lambda entry: entry["score"])
    whole = with_student(load(teacher), plan)
    take(whole, train / "checkpoints" / best["checkpoint"], best["average"])
    export(whole, student)
    write_json(
        selection,
        {
            "chosen": best["checkpoint"],
            "average": best["average"],
            "why": WHY,
            "samples": config.samples,
            "seed": config.seed,
            "features": network.sha256,
            "checkpoints": measured,
        },
    )
    last = next(entry for entry in measured if entry["checkpoint"] == checkpoints[-1].name)
    chosen = best["checkpoint"] if best["average"] == last["average"] else f"{best['checkpoint']}/{best['average']}"
    return {"chosen": chosen, "of": len(measured), "score": best["score"], "last": last["score"]}


def find_checkpoints(train: Path) -> list[Path]:
    """The checkpoint folders by step, whole ones only: a folder without a manifest was never finished."""
    folders = checkpoint.checkpoints(train / "checkpoints")
    if not folders:
        raise SlamError(f"{train / 'checkpoints'}: expected checkpoints step-*/, found none; run `{MADE_BY}` first")
    return folders


def with_student(teacher: LatentDiffusion, plan: Plan) -> LatentDiffusion:
    """The teacher with a student's U-Net in its place, as it is at gamma = 1: only w is ever told it."""
    told_w = embedding_of(plan.distill.method, plan.distill.conditioning) == "w"
    unet = make_student(teacher.unet, "w" if told_w else "none", plan.train.lora).eval()
    return replace(teacher, unet=unet)


def take(model: LatentDiffusion, folder: Path, average: str = checkpoint.EMA) -> None:
    """Put a checkpoint's weights, its file `average`, in `model`'s U-Net."""
    weights = read_weights(folder, average)
    if not model.told_w:
        weights.pop(PROJECTION, None)  # of gamma: at gamma = 1, where a student samples, its input is zero
    load_weights(model.unet, weights, trained(model.unet))


def read_weights(folder: Path, average: str) -> dict[str, Tensor]:
    """Verified."""
    manifest = checkpoint.read_manifest(folder)
    verify(folder / average, manifest["files"][average]["sha256"], MADE_BY)
    return load_file(folder / average)


def reconstructions(model: LatentDiffusion, held_out: Latents, network: FeatureNetwork, batch: int) -> Moments:
    """Of all held-out latents, decoded: the VAE's own loss is no checkpoint's fault."""
    found = []
    for part in batches(len(held_out), batch, "held-out pictures"):
        latents, _ = held_out.gather(np.arange(part.start, part.stop))
        with torch.inference_mode():
            pictures = model.decode(torch.as_tensor(latents).to(model.vae.device, model.vae.dtype))
        found.append(network(rows(pictures.cpu())))
    return moments(np.concatenate(found))


def examine(model: LatentDiffusion, folder: Path, average: str, exam: Exam) -> dict:
    """One sampling for each step count; the score is the geometric mean of the distances, so that each counts alike."""
    take(model, folder, average)
    label = f"{folder.name}, {average.removesuffix('.safetensors')}"
    distances = {steps: distance(model, steps, exam, f"{label}, {steps} steps") for steps in exam.config.steps}
    score = math.exp(np.mean([math.log(max(value, 1e-12)) for value in distances.values()]))
    return {"checkpoint": folder.name, "average": average, "frechet": distances, "score": score}


def distance(model: LatentDiffusion, steps: int, exam: Exam, label: str) -> float:
    drawn = generate(
        model,
        exam.captions,
        sampler="lcm",
        steps=steps,
        guidance=exam.guidance,
        seed=exam.config.seed,
        batch=exam.config.batch,
        label=label,
    )
    found = np.concatenate([exam.network(rows(pictures)) for _, pictures, _ in drawn])
    return frechet_distance(moments(found), exam.reference)
