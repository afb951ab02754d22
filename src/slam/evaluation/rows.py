"""What a table compares: a model, a sampler, its steps and its guidance in each line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slam.config import Evaluate


@dataclass(frozen=True)
class Row:
    """One line of the table. steps = 0: the reference pictures through the VAE, which bounds every sampler on it."""

    model: str  # vae, teacher, student, champion
    sampler: str
    steps: int
    guidance: float

    @property
    def label(self) -> str:
        return f"{self.model} {self.sampler} {self.steps or ''}".rstrip()


def training_free(config: Evaluate, model: str = "teacher") -> list[Row]:
    """A model that was not distilled: at many steps, and by each sampler at each step count; no row twice."""
    rows = [Row(model, "ddim", config.teacher_steps, config.guidance)]
    rows += [Row(model, name, steps, config.guidance) for name in config.samplers for steps in config.steps]
    return list(dict.fromkeys(rows))


def distilled(config: Evaluate, model: str = "student", guidance: float = 1.0) -> list[Row]:
    """A student at each step count. One that is told its guidance is told the teacher's; others have learnt theirs."""
    return [Row(model, "lcm", steps, guidance) for steps in config.steps]


def table_rows(config: Evaluate, guidance: float = 1.0, also: Iterable[Row] = ()) -> list[Row]:
    """The VAE, the teacher, each training-free sampler, what is there `also`, and the student."""
    return [Row("vae", "reconstruction", 0, 1.0), *training_free(config), *also, *distilled(config, guidance=guidance)]
