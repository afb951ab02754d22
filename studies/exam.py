"""What every network of a study is put to: the same captions, noise, reference pictures and feature networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from slam import paths
from slam.config import Profile
from slam.core.gap import gap
from slam.data.latents import Latents
from slam.evaluation import kept
from slam.evaluation.evaluate import reference_features
from slam.evaluation.features import rows
from slam.evaluation.frechet import Moments, frechet_distance, moments
from slam.evaluation.generate import Drawn, generate
from slam.evaluation.metrics import point_scores
from slam.evaluation.observe import observe
from slam.evaluation.provenance import weights_sha256
from slam.evaluation.select import take, with_student
from slam.evaluation.subject import Subject
from slam.evaluation.work import Studio
from slam.files import whole_file
from slam.models.diffusion import LatentDiffusion
from slam.models.predictor import NoisePredictor, schedule_of
from slam.protocols import digest
from slam.training import checkpoint
from slam.training.plan import Plan
from studies.variants import Variant

CACHE = Path("runs/studies/.evaluation")  # moments of the references
PICTURES = 8  # a row of a strip
GAP_K, GAP_FROM, GAP_SAMPLES = 20, 100, 128  # Fig 2c: k, the least t; pictures
KEPT = ("fid", "to_teacher", "clip_score", "faithfulness", "captions_right", "seconds_per_image")


class Exam:
    def __init__(self, profile: Profile) -> None:
        self.config = profile.evaluate
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        studio = Studio(self.config, {"teacher": Subject(profile.teacher)}, paths.EVALUATION, self.device)
        self.teacher, self.reference, self.instruments = studio.models["teacher"], studio.reference, studio.instruments
        # In the fingerprint of every result: these values in this form, or the studies run anew.
        self.protocol = digest(
            {
                "name": "tiny-v1",
                "n": self.config.n,
                "seed": self.config.seed,
                "precision": self.config.precision,
                "reference": self.reference.sha256(),
                "features": self.instruments.network.sha256,
                "resolution": self.instruments.network.resolution,
                "clip": studio.facts["clip_sha256"],
                "clip_prefix": self.instruments.clip_prefix,
                "judge": studio.facts["judge_sha256"],
                "version": 1,
            }
        )
        self.target = moments(reference_features(studio, CACHE))

    def take(self, plan: Plan, variant: Variant, folder: Path, strip: Path | None) -> dict:
        """{"curve": [{"step", "rows"}], "gap"} of the checkpoints in `folder`; pictures of the last one at `strip`."""
        model = with_student(self.teacher, plan)
        saved = checkpoint.checkpoints(folder / "checkpoints")
        scales = (variant.told or (plan.distill.w,)) if model.told_w else (1.0,)
        curve = []
        for path in saved if variant.curve else saved[-1:]:
            take(model, path)
            table = []
            for scale in scales:
                w = scale if model.told_w else plan.distill.w
                found, pictures = self.measured(model, ["lcm"], self.config.steps, scale, w)
                table += found
            curve.append({"step": checkpoint.read_manifest(path)["step"], "rows": table})
        if strip:
            write_strip(pictures, strip)
        return {"curve": curve, "gap": self.gap(model) if variant.gap else None}

    def measured(
        self, model: LatentDiffusion, samplers: Sequence[str], steps: Sequence[int], guidance: float, w: float
    ) -> tuple[list[dict], list[np.ndarray]]:
        """A record and the first pictures of each sampler and step count; w is the teacher's that they should match."""
        records, strips = [], []
        teacher = self.of_teacher(w)
        for sampler, count in ((s, n) for s in samplers for n in steps):
            drawn = self.draw(model, sampler, count, guidance, self.config.seed)
            seen = observe(drawn, self.reference.captions, self.instruments, PICTURES)
            measured = point_scores(seen, self.target, self.config.judge is not None)
            measured["to_teacher"] = frechet_distance(moments(seen.features), teacher)
            numbers = {key: measured[key] and round(measured[key], 5) for key in KEPT}
            records.append({"sampler": sampler, "steps": count, "guidance": guidance, **numbers})
            strips.append(seen.shown)
        return records, strips

    def draw(self, model: LatentDiffusion, sampler: str, steps: int, guidance: float, seed: int) -> Iterator[Drawn]:
        return generate(
            model,
            self.reference.captions,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            seed=seed,
            batch=self.config.batch,
            label=f"{sampler} {steps}",
        )

    def of_teacher(self, w: float) -> Moments:
        """Of the teacher's pictures (DDIM, all its steps) of the captions at w, from other noise than the students'."""
        steps, seed = self.config.teacher_steps, self.config.seed + 1
        file = (
            CACHE / f"teacher-{digest([self.protocol, weights_sha256(self.teacher.unet), steps, w, seed])}.safetensors"
        )
        if not file.is_file():
            drawn = self.draw(self.teacher, "ddim", steps, w, seed)
            found = moments(np.concatenate([self.instruments.network(rows(part.pictures)) for part in drawn]))
            kept.write(file, {"w": w, "steps": steps, "seed": seed}, **found._asdict())
        return Moments(**kept.read(file)[1])

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
