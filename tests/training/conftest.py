"""A profile for short trainings."""

from functools import partial
from pathlib import Path

import pytest
import yaml

from slam.config import parse


def make_profile(teacher: Path, **changes):
    """The tiny profile on `teacher`, cut down, with changes such as {"train.steps": 6}."""
    tiny = yaml.safe_load(Path("params.yaml").read_text())["profiles"]["tiny"]
    values = {**tiny, "teacher": str(teacher)}
    values["distill"] = {**tiny["distill"], "k": 20}
    values["train"] = {
        **tiny["train"],
        "lr": 3e-4,
        "decay": "constant",
        "steps": 6,
        "batch": 8,
        "checkpoint_every": 3,
        "log_every": 2,
        "keep": 4,
    }
    for key, value in changes.items():
        section, name = key.split(".")
        values[section] = {**values[section], name: value}
    return parse(values, "test")


@pytest.fixture
def profile(random_teacher):
    """profile(**{"train.steps": 6}), on the random teacher."""
    return partial(make_profile, random_teacher)
