"""What the main process looks at beside the training, which changes no number of it."""

from __future__ import annotations

from pathlib import Path

from slam.data.latents import Latents
from slam.models.diffusion import LatentDiffusion
from slam.models.predictor import NoisePredictor
from slam.training.heldout import held_out_loss, held_out_questions
from slam.training.meter import finite
from slam.training.pictures import draw_pictures
from slam.training.plan import Plan
from slam.training.step import Objective


class Watch:
    """Draws the target's pictures every `train.pictures_every` steps, and with `train.keep_best` judges checkpoints.

    Raises `SlamError` when it has something to do, and there is no split "validation".
    """

    def __init__(
        self, plan: Plan, objective: Objective, model: LatentDiffusion, target: NoisePredictor, folder: Path
    ) -> None:
        self.plan, self.objective, self.model, self.target, self.folder = plan, objective, model, target, folder
        if plan.train.pictures_every or plan.train.keep_best:
            self.held_out = Latents(Path(plan.latents), "validation")
        if plan.train.keep_best:
            self.questions = held_out_questions(plan, objective, self.held_out, model.latent_shape)

    def judge(self) -> dict[str, float | None]:
        if not self.plan.train.keep_best:
            return {}
        return {"held_out_loss": finite(held_out_loss(self.objective, self.target, self.questions))}

    def draw(self, done: int) -> None:
        every = self.plan.train.pictures_every
        if every and done % every == 0:
            path = self.folder / f"step-{done:06d}.png"
            draw_pictures(self.plan, self.objective, self.model, self.target, self.held_out, path)
