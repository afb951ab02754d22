"""Methods and their switches as values: what a name in `params.yaml` stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from slam.core.conditioning import by_embedding, time_matched
from slam.core.distance import huber, l2
from slam.core.draw import no_gamma, uniform_gamma
from slam.core.paths import direct_linking, endpoint, sub_path_exact, sub_path_linear


class Method(NamedTuple):
    paths: dict[str, Callable]  # by the form of sigma
    gamma_law: Callable


METHODS = {
    "slam": Method({"linear": sub_path_linear, "exact": sub_path_exact}, uniform_gamma),
    "dl": Method({"exact": direct_linking}, uniform_gamma),
    "lcm": Method({"linear": endpoint, "exact": endpoint}, no_gamma),
}
CONDITIONINGS = {"time-matched": time_matched, "gamma": by_embedding}
DISTANCES = {"huber": huber, "l2": l2}
