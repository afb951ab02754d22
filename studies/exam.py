"""What every network of a study is put to: the same captions, noise, reference pictures and feature networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from slam import paths
from slam.config import Profile
from slam.core.gap import gap
from slam.data.latents import Latents
from slam.evaluation.evaluate import prepare
from slam.evaluation.generate import generate
from slam.evaluation.metrics import measure
from slam.evaluation.reference import load_reference
from slam.evaluation.select import take, with_student
from slam.files import whole_file
from slam.models.diffusion import LatentDiffusion, load
from slam.models.predictor import NoisePredictor, schedule_of
from slam.training import checkpoint
from slam.training.plan import Plan
from studies.variants import Variant

PICTURES = 8  # a row of a strip
GAP_K, GAP_FROM, GAP_SAMPLES = 20, 100, 128  # Fig 2c: k, the least t; pictures
KEPT = ("fid", "clip_score", "faithfulness", "captions_right", "seconds_per_image")


class Exam:
    def __init__(self, profile: Profile) -> None:
        self.config = profile.evaluate
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.teacher = load(profile.teacher, device=self.device)
        self.reference = load_reference(paths.EVALUATION, self.config.samples)
        self.instruments, protocol = prepare(self.config, self.reference, Path("runs/studies/.evaluation"), self.device)
        self.protocol = protocol.hash

    def take(self, plan: Plan, variant: Variant, folder: Path, strip: Path | None) -> dict:
        """{"curve": [{"step", "rows"}], "gap"} of the checkpoints in `folder`; pictures of the last one at `strip`."""
        model = with_student(self.teacher, plan)
        kept = checkpoint.checkpoints(folder / "checkpoints")
        scales = (variant.told or (plan.distill.w,)) if model.told_w else (1.0,)
        curve = []
        for path in kept if variant.curve else kept[-1:]:
            take(model, path)
            rows, pictures = self.rows(model, ["lcm"], self.config.steps, scales)
            curve.append({"step": checkpoint.read_manifest(path)["step"], "rows": rows})
        if strip:
            write_strip(pictures, strip)
        return {"curve": curve, "gap": self.gap(model) if variant.gap else None}

    def rows(self, model: LatentDiffusion, samplers, steps, scales) -> tuple[list[dict], list[np.ndarray]]:
        """A record and the first pictures of every sampler, step count and guidance scale."""
        records, strips = [], []
        for sampler, count, guidance in ((s, n, w) for w in scales for s in samplers for n in steps):
            drawn = generate(
                model,
                self.reference.captions,
                sampler=sampler,
                steps=count,
                guidance=guidance,
                seed=self.config.seed,
                batch=self.config.batch,
                label=f"{sampler} {count}",
            )
            measured, pictures = measure(drawn, self.instruments, PICTURES)
            numbers = {key: measured[key] and round(measured[key], 5) for key in KEPT}
            records.append({"sampler": sampler, "steps": count, "guidance": guidance, **numbers})
            strips.append(pictures)
        return records, strips

    @torch.inference_mode()
    def gap(self, model: LatentDiffusion) -> list[dict]:
        """[{"t", "delta"}] on held-out pictures, at the 45 times of the DDIM grid from t = 119."""
        schedule = schedule_of(model.scheduler, model.name).to(self.device)
        net = NoisePredictor(model.unet, model.scheduler.config.prediction_type, schedule)
        held_out = Latents(paths.LATENTS, "validation")
        z0, ids = held_out.gather(np.arange(min(GAP_SAMPLES, len(held_out))))
        noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(self.config.seed)).to(self.device)
        z0, c = z0.to(self.device), model.embed_tokens(ids)
        deltas = []
        for t in range(GAP_K - 1, schedule.T, GAP_K):
            if t >= GAP_FROM:
                delta = gap(net, z0, c, noise, torch.full((len(z0),), t, device=self.device), GAP_K, schedule)
                deltas.append({"t": t, "delta": round(delta.mean().item(), 5)})
        return deltas


def write_strip(pictures: list[np.ndarray], path: Path) -> None:
    """A PNG: one row of pictures for each element, [N, H, W, 3] uint8."""
    with whole_file(path.with_suffix(".png")) as partial:
        Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in pictures])).save(partial, "PNG")
