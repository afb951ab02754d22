"""What a study file says: variants of one profile, each a few keys that differ, and what each is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from slam import config
from slam.config import Distill, Frozen, Positive, Profile, parse
from slam.errors import SlamError

Settings = dict[str, Any]  # dotted keys of a profile: {"distill.k": 100}
Scale = Annotated[float, Field(ge=1)]


class Variant(Frozen):
    set: Settings = Field(default_factory=dict)
    seeds: Positive | None = None  # how many, 0, 1, …; the study's own number by default
    curve: bool = False  # measured at every checkpoint, not at the last alone (Fig 2b)
    gap: bool = False  # the error of Fig 2c is measured
    told: tuple[Scale, ...] = ()  # lcm_w: the guidance scales that it is measured at; distill.w by default


class Baselines(Frozen):
    """The teacher and the training-free samplers."""

    samplers: tuple[str, ...]
    steps: tuple[Positive, ...]
    guidance: tuple[Scale, ...]


class Study(Frozen):
    profile: str
    base: Settings  # of every variant
    # Passes of the U-Net that a training sample's row of the batch may cost over the whole run: it decides the steps of
    # each variant, so that all cost the same.
    budget: Positive
    points: Positive  # of a curve
    seeds: Positive
    samples: Positive  # pictures of each measurement
    baselines: Baselines
    variants: dict[str, Variant]


def load_study(path: Path) -> Study:
    """Raises `SlamError` for a file that is missing, or that names a key or value that no study has."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SlamError(f"{path} does not exist: expected a study, such as studies/study.yaml") from None
    except yaml.YAMLError as error:
        raise SlamError(f"{path}: expected YAML, found {error}") from None
    study = parse(values, str(path), Study)
    for name in study.variants:
        profile_of(study, name)  # a mistake is said before hours of training, not after
    return study


def profile_of(study: Study, name: str | None = None, seed: int = 0) -> Profile:
    """The profile of a variant, or with None the study's base; its steps are what the budget pays for."""
    where = f"variant {name}"
    settings = {**study.base, **(study.variants[name].set if name else {})}
    values = config.load(profile=study.profile).model_dump()
    for key, value in settings.items():
        section, _, field = key.partition(".")
        if not field or section not in values:
            raise SlamError(f"{where}: {key} is not a key of a profile: expected one such as distill.k")
        values[section][field] = value
    steps = study.budget // passes(parse(values["distill"], f"{where}: distill", Distill))
    values["train"] |= {
        "seed": seed,
        "steps": steps,
        "checkpoint_every": -(-steps // study.points),
        "keep": study.points,
    }
    values["evaluate"]["samples"] = study.samples
    return parse(values, where)


def passes(distill: Distill) -> int:
    """Passes of the U-Net that one sample of a training step costs: two of the teacher for each step of the solver, one
    of the target, one of the student and two for its gradient."""
    solver = distill.k // distill.k_phi if distill.multiple_estimation else 1
    return 2 * solver + 1 + 1 + 2
