"""A U-Net as the core's noise predictor: `eps = net(z, t, c, gamma=None, w=None)`."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import DDIMScheduler
from torch import Tensor, nn

from slam.core.schedule import Schedule, make_schedule
from slam.errors import SlamError
from slam.models.embedding import EMBEDDINGS

Marginal = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # t [B], gamma [B] to alpha, sigma [B, 1, 1, 1]


def schedule_of(scheduler: DDIMScheduler, name: str) -> Schedule:
    """The noise schedule that a model folder's scheduler describes. Raises `SlamError` for one that cannot be used."""
    try:
        return make_schedule(scheduler.alphas_cumprod)
    except ValueError as error:
        raise SlamError(f"{name}/scheduler: {error}") from None


class NoisePredictor(nn.Module):
    """`unet` with diffusers' call signature, predicting eps or v, as a predictor of eps.

    A point on a path has the marginal N(alpha z_0, sigma^2 I), which `marginal(t, gamma)` tells; where gamma is None it
    is the schedule's own at t, which is all that a network that is never told gamma needs.
    """

    def __init__(
        self,
        unet: nn.Module,
        prediction_type: str,
        schedule: Schedule,
        embedding: str = "none",
        marginal: Marginal | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.embed = EMBEDDINGS[embedding]
        self.to_eps = PREDICTIONS[prediction_type]
        self.schedule = schedule
        self.marginal = marginal

    def forward(self, z: Tensor, t: Tensor, c: Tensor, gamma: Tensor | None = None, w: Tensor | None = None) -> Tensor:
        output = self.unet(z, t, encoder_hidden_states=c, timestep_cond=self.embed(gamma, w)).sample
        return self.to_eps(output, z, lambda: self.schedule.circle(t) if gamma is None else self.marginal(t, gamma))


def _eps(output: Tensor, z: Tensor, place: Callable) -> Tensor:
    return output


def _v(output: Tensor, z: Tensor, place: Callable) -> Tensor:
    """v of the point at unit variance, as its own eps.

    With n^2 = alpha^2 + sigma^2, z / n = (alpha/n) z_0 + (sigma/n) eps lies on the unit circle, where
    v = (alpha/n) eps - (sigma/n) z_0. So (alpha/n) v + (sigma/n) (z/n) = eps. At gamma = 1, n = 1: the usual form.
    """
    alpha, sigma = place()
    square = alpha**2 + sigma**2
    return alpha * square.rsqrt() * output + sigma / square * z


PREDICTIONS: dict[str, Callable] = {"epsilon": _eps, "v_prediction": _v}


def marginal_of(path: Callable, k: int, schedule: Schedule) -> Marginal:
    """The marginal of `path`'s points on the sub-path that starts at t and is k long."""

    def marginal(t: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        nowhere = schedule.alpha(t)  # alpha and sigma do not depend on the two ends z_s, z_t
        point = path(nowhere, nowhere, (t - k).clamp(min=0), t, gamma, schedule)
        return point.alpha, point.sigma

    return marginal


def check_prediction(prediction_type: str, name: str) -> None:
    """Refuses a teacher that this code cannot read as a noise predictor."""
    if prediction_type not in PREDICTIONS:
        raise SlamError(
            f"{name}/scheduler: prediction_type = {prediction_type!r}: expected one of {', '.join(PREDICTIONS)}"
        )
