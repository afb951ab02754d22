"""Is a model still what it was registered as? Its records now against its records then, metric by metric."""

from __future__ import annotations

import math
from typing import NamedTuple

from slam.errors import SlamError

LOWER_IS_BETTER = ("fid", "kid")
HIGHER_IS_BETTER = ("precision", "recall", "clip_score", "faithfulness")  # the time an image takes is the machine's


class Drift(NamedTuple):
    """A metric at a number of steps that has left the 95% interval it had at registration."""

    steps: int
    metric: str
    then: float
    interval: tuple[float, float]
    now: float | None

    @property
    def worse(self) -> bool:
        if self.now is None or not math.isfinite(self.now):
            return True
        return self.now > self.interval[1] if self.metric in LOWER_IS_BETTER else self.now < self.interval[0]

    def __str__(self) -> str:
        low, high = self.interval
        now = "not measured" if self.now is None else f"{self.now:.4g}"
        direction = "worse" if self.worse else "better"
        steps = f"{self.steps} step{'s' * (self.steps > 1)}"
        return f"{self.metric} at {steps}: {now}, {direction} than {self.then:.4g} [{low:.4g}, {high:.4g}]"


def drifts(then: list[dict], now: list[dict]) -> list[Drift]:
    """What left its interval. `then`: the records that the version was registered with; `now`: measured again.

    Raises `SlamError` when the two cannot be compared: another protocol, or no intervals at the same steps.
    """
    then = [record for record in then if record["model"] == "student"]
    protocols = [{f"{record['protocol']} ({record['protocol_hash'][:8]})" for record in side} for side in (then, now)]
    if protocols[0] != protocols[1]:
        raise SlamError(
            f"measured under {_names(protocols[1])}, registered under {_names(protocols[0])}: not comparable; "
            "evaluate and register the student again under the present protocol"
        )
    again = {record["steps"]: record for record in now}
    compared = [
        Drift(old["steps"], metric, old[metric], _interval(old, metric), again[old["steps"]].get(metric))
        for old in then
        for metric in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER)
        if old["steps"] in again and old.get(f"{metric}_interval")
    ]
    if not compared:
        raise SlamError("the version was registered without intervals at these numbers of steps: register it again")
    return [item for item in compared if not _inside(item)]


def _interval(record: dict, metric: str) -> tuple[float, float]:
    """The interval, with the value itself in it: the resampled FID lies above the FID."""
    low, high = record[f"{metric}_interval"]
    return min(low, record[metric]), max(high, record[metric])


def _inside(item: Drift) -> bool:
    # Of a NaN, this is False.
    return item.now is not None and item.interval[0] <= item.now <= item.interval[1]


def _names(protocols: set[str]) -> str:
    return ", ".join(sorted(protocols)) or "no protocol"
