"""A profile for short trainings."""

from pathlib import Path

import pytest
import yaml

from slam.config import parse


@pytest.fixture(scope="session")
def profile(random_teacher):
    """profile(**{"train.steps": 6}): the tiny profile on the random teacher, cut down, with changes."""
    tiny = yaml.safe_load(Path("params.yaml").read_text())["profiles"]["tiny"]

    def make(**changes):
        values = {**tiny, "teacher": str(random_teacher)}
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

    return make
