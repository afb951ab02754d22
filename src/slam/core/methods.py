"""Methods and their switches as values: what a name in `params.yaml` stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from slam.core.conditioning import by_embedding, time_matched
from slam.core.distance import huber, huber_vector, l2
from slam.core.draw import fixed_w, no_gamma, uniform_gamma, uniform_w
from slam.core.paths import direct_linking, endpoint, sub_path_exact, sub_path_linear
from slam.core.weighting import by_noise, by_step, uniform


class Method(NamedTuple):
    paths: dict[str, Callable]  # by the form of sigma
    gamma_law: Callable
    w_law: Callable = fixed_w


METHODS = {
    "slam": Method({"linear": sub_path_linear, "exact": sub_path_exact}, uniform_gamma),
    "dl": Method({"exact": direct_linking}, uniform_gamma),
    "lcm": Method({"linear": endpoint, "exact": endpoint}, no_gamma),
    "lcm_w": Method({"linear": endpoint, "exact": endpoint}, no_gamma, uniform_w),
}
# The two embeddings differ in the features of gamma that the network gets: slam.models.student.
CONDITIONINGS = {"time-matched": time_matched, "gamma": by_embedding, "gamma-continuous": by_embedding}
DISTANCES = {"huber": huber, "huber-vector": huber_vector, "l2": l2}
WEIGHTINGS = {"uniform": uniform, "step": by_step, "noise": by_noise}
