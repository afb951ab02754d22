"""A U-Net as the core's noise predictor: `eps = net(z, t, c, gamma=None, w=None)`."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import DDIMScheduler
from torch import Tensor, nn

from slam.core.schedule import Schedule, make_schedule
from slam.errors import SlamError
from slam.models.embedding import EMBEDDINGS


def schedule_of(scheduler: DDIMScheduler, name: str) -> Schedule:
    """The noise schedule that a model folder's scheduler describes. Raises `SlamError` for one that cannot be used."""
    try:
        return make_schedule(scheduler.alphas_cumprod)
    except ValueError as error:
        raise SlamError(f"{name}/scheduler: {error}") from None


class NoisePredictor(nn.Module):
    """`unet` with diffusers' call signature, predicting eps or v, as a predictor of eps.

    For v the point must have unit variance (alpha^2 + sigma^2 = 1), which the time-matched form and gamma = 1 give:
    v = alpha eps - sigma z_0 and z = alpha z_0 + sigma eps, so alpha v + sigma z = eps.
    """

    def __init__(self, unet: nn.Module, prediction_type: str, schedule: Schedule, embedding: str = "none") -> None:
        super().__init__()
        self.unet = unet
        self.embed = EMBEDDINGS[embedding]
        self.to_eps = PREDICTIONS[prediction_type]
        self.schedule = schedule

    def forward(self, z: Tensor, t: Tensor, c: Tensor, gamma: Tensor | None = None, w: Tensor | None = None) -> Tensor:
        output = self.unet(z, t, encoder_hidden_states=c, timestep_cond=self.embed(gamma, w)).sample
        return self.to_eps(output, z, t, self.schedule)


def _eps(output: Tensor, z: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    return output


def _v(output: Tensor, z: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    alpha, sigma = schedule.circle(t)
    return alpha * output + sigma * z


PREDICTIONS: dict[str, Callable] = {"epsilon": _eps, "v_prediction": _v}


def check_prediction(prediction_type: str, name: str, embedding: str) -> None:
    """Refuses a teacher that this code cannot read as a noise predictor."""
    if prediction_type not in PREDICTIONS:
        raise SlamError(
            f"{name}/scheduler: prediction_type = {prediction_type!r}: expected one of {', '.join(PREDICTIONS)}"
        )
    if prediction_type == "v_prediction" and embedding.startswith("gamma"):
        raise SlamError(
            f"{name} predicts v, which needs points of unit variance: set distill.conditioning = time-matched"
        )
